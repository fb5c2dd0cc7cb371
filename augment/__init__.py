"""Augmented copies of satellite tiles: turned, mirrored, cropped and relit, with their region boxes moved along.

`georefine rebuild` calls `augment.satellite.augment_tile` for every satellite tile of the train split; what the
parameters mean, and what stays visible, is in docs/augmentation.md. Imports only schemas.
"""

import os

# albumentations asks the network for a newer release when it is imported; a rebuild must not depend on an answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

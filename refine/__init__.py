"""Caption refinement: orientation taken out, captions rewritten per platform, every rewrite judged by gates."""

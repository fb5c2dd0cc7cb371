"""The mixture of platform experts: training on shards, evaluation, retrieval.

    python -m experts train DATASET --out RUN       what `georefine train` calls
    python -m experts evaluate RUN DATASET          recall@1/5/10 both ways, per platform
    python -m experts search RUN DATASET "TEXT"     ranked images

Runs on a bare GPU machine: torch, numpy, pyarrow, pillow and the standard library are all it needs, and for the
pretrained encoders transformers and timm.

    examples.py    a split of a data set in memory: pixels and captions
    encoders.py    words -> ids; the compact image and text trunks
    model.py       trunks, three experts, gate; fused_text and fused_image
    tails.py       the mixtures over pretrained trunks: layers of their own, or adapters
    routers.py     gate scores to weights: softmax, top1, top2, sparsemax, uniform
    muon.py        the optimizer of the image trunk's filters
    losses.py      InfoNCE without false negatives, with and without mined negatives
    mining.py      hard negatives: other buildings, positive-aware
    trainer.py     the three stages, checkpoints, resume
    parallel.py    several processes under torchrun: shared batches, gathered negatives
    checkpoint.py  one file: weights, configuration, vocabulary, the shards it was trained on
    card.py        the model card and curves.png of a run
    embed.py       texts and images through a model, in batches
    device.py      cpu or cuda, precision, out-of-memory errors
    evaluate.py    recall by building
    baseline.py    what a colour histogram reaches, for scale
    robustness.py  recall under blur, noise, occlusion, fog and JPEG
    search.py      images for a sentence, from an index kept beside the run
    submit.py      the submission file of RoboSense 2025 Track 4
    pretrained.py  BGE-M3 and EVA02-CLIP, each cut into a frozen trunk and a tail
    stored.py      trunk features of one run, for adapters
    features.py    trunk features on disk, memory-mapped
    cues.py        pooling over a flight, crops at two scales, and the recall they give
"""

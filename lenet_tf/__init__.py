"""The training loop in your own hands: plain TensorFlow, from tf.data to checkpoints.

import lenet_tf

strategy = lenet_tf.make_strategy("auto")
splits = lenet_tf.load("mnist")
with strategy.scope():
    model = lenet_tf.LeNet5()
trainer = lenet_tf.Trainer(model, lenet_tf.Adam(1e-3), strategy=strategy)
trainer.fit(lenet_tf.as_batches(splits.train, 64, seed=0), epochs=3)

The names that everyone needs are here; all others are in the packages `data`, `nn`,
`optim`, `parallel`, `checkpoint`, `train`, `experiment`, `report` and `pictures`, as in
`lenet_tf.nn.Distortion`. `__init__.pyi` lists them; TensorFlow is imported when the
first of them is used.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Pictures in files -> images as a dataset has them."""

from lenet_tf.errors import UsageError

try:
    import PIL as PIL
    import scipy as scipy
except ModuleNotFoundError as error:
    raise UsageError(
        f"{error.name} is not installed: run pip install 'lenet_tf[pictures]'"
    ) from error

# isort: split

from lenet_tf.pictures.digits import Digit as Digit
from lenet_tf.pictures.digits import find_digit as find_digit
from lenet_tf.pictures.digits import find_digits as find_digits
from lenet_tf.pictures.ink import ink_of as ink_of
from lenet_tf.pictures.reading import PictureError as PictureError
from lenet_tf.pictures.reading import fit_picture as fit_picture
from lenet_tf.pictures.reading import picture_files as picture_files
from lenet_tf.pictures.reading import read_picture as read_picture

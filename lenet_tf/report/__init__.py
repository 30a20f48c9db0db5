"""What a run has come to, as pictures and as a page."""

from lenet_tf.report.classification import (
    classification_sections as classification_sections,
)
from lenet_tf.report.curves import plot_history as plot_history
from lenet_tf.report.curves import write_curves as write_curves
from lenet_tf.report.page import write_page as write_page
from lenet_tf.report.parts import Chart as Chart
from lenet_tf.report.parts import Matrix as Matrix
from lenet_tf.report.parts import Section as Section
from lenet_tf.report.parts import Table as Table
from lenet_tf.report.parts import Tile as Tile
from lenet_tf.report.parts import Tiles as Tiles
from lenet_tf.report.parts import figure as figure
from lenet_tf.report.parts import tiles as tiles
from lenet_tf.report.regression import regression_sections as regression_sections
from lenet_tf.report.scores import calibration as calibration
from lenet_tf.report.scores import class_scores as class_scores
from lenet_tf.report.scores import confusion_matrix as confusion_matrix

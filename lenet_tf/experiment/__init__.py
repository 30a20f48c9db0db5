"""A whole run in a directory: settings, training, test figures, report."""

from lenet_tf.experiment.build import as_batches as as_batches
from lenet_tf.experiment.build import build_forward as build_forward
from lenet_tf.experiment.build import build_optimizer as build_optimizer
from lenet_tf.experiment.build import build_schedule as build_schedule
from lenet_tf.experiment.build import build_trainer as build_trainer
from lenet_tf.experiment.build import load_splits as load_splits
from lenet_tf.experiment.config import Config as Config
from lenet_tf.experiment.exports import export_litert as export_litert
from lenet_tf.experiment.exports import export_onnx as export_onnx
from lenet_tf.experiment.exports import export_run as export_run
from lenet_tf.experiment.network import Network as Network
from lenet_tf.experiment.network import load_network as load_network
from lenet_tf.experiment.recipes import RECIPES as RECIPES
from lenet_tf.experiment.recipes import recipe as recipe
from lenet_tf.experiment.run_directory import Workdir as Workdir
from lenet_tf.experiment.runs import evaluate as evaluate
from lenet_tf.experiment.runs import run as run
from lenet_tf.experiment.settings import markdown_table as markdown_table
from lenet_tf.experiment.settings import setting as setting
from lenet_tf.experiment.sweeps import grid as grid
from lenet_tf.experiment.sweeps import sweep as sweep
from lenet_tf.experiment.sweeps import table as table
from lenet_tf.experiment.workdir import claim as claim
from lenet_tf.report.curves import plot_history as plot_history
from lenet_tf.report.curves import write_curves as write_curves

"""The names that `radapter_lite` offers, and where each lives; __init__.py loads them when they are first used."""

from .adapter import AdapterConfig as AdapterConfig
from .adapter import AdapterSet as AdapterSet
from .adapter import LinearAdapter as LinearAdapter
from .alpha_curve import AlphaCurve as AlphaCurve
from .backbone import Backbone as Backbone
from .backbone import load_clip as load_clip
from .backbone.sites import find_sites as find_sites
from .data import ImageSet as ImageSet
from .data import load_images as load_images
from .delta import Delta as Delta
from .encoding import predict as predict
from .encoding import text_head as text_head
from .evaluation import evaluate as evaluate
from .evaluation import segment as segment
from .evaluation import sweep as sweep
from .losses import info_nce as info_nce
from .losses import mpm_nce as mpm_nce
from .methods import METHODS as METHODS
from .methods import load_tuned as load_tuned
from .methods import recommended as recommended
from .methods import register as register
from .methods import tune as tune
from .publish.exercises import check as check
from .publish.notebook import sized as sized
from .tasks import Classification as Classification
from .tasks import Retrieval as Retrieval
from .tasks import Segmentation as Segmentation
from .tasks import Task as Task
from .training import TrainingConfig as TrainingConfig
from .training import train as train
from .tuned import Tuned as Tuned
from .view.guesses import guess as guess
from .view.guesses import measured as measured
from .view.guesses import predictions as predictions
from .view.sliders import alpha_slider as alpha_slider
from .view.sliders import encoder_map as encoder_map
from .view.sliders import move as move

__all__: list[str]
__version__: str

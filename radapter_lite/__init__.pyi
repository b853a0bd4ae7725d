"""The names that `radapter_lite` offers, for type checkers; __init__.py loads them when they are first used."""

from radapter_lite.adapter import AdapterConfig as AdapterConfig
from radapter_lite.adapter import AdapterSet as AdapterSet
from radapter_lite.adapter import LinearAdapter as LinearAdapter
from radapter_lite.alpha_curve import AlphaCurve as AlphaCurve
from radapter_lite.backbone import Backbone as Backbone
from radapter_lite.backbone import load_clip as load_clip
from radapter_lite.backbone.sites import find_sites as find_sites
from radapter_lite.data import ImageSet as ImageSet
from radapter_lite.data import load_images as load_images
from radapter_lite.delta import Delta as Delta
from radapter_lite.encoding import predict as predict
from radapter_lite.encoding import text_head as text_head
from radapter_lite.evaluation import evaluate as evaluate
from radapter_lite.evaluation import segment as segment
from radapter_lite.evaluation import sweep as sweep
from radapter_lite.losses import info_nce as info_nce
from radapter_lite.losses import mpm_nce as mpm_nce
from radapter_lite.methods import METHODS as METHODS
from radapter_lite.methods import load_tuned as load_tuned
from radapter_lite.methods import recommended as recommended
from radapter_lite.methods import register as register
from radapter_lite.methods import tune as tune
from radapter_lite.publish.exercises import check as check
from radapter_lite.publish.notebook import sized as sized
from radapter_lite.tasks import Classification as Classification
from radapter_lite.tasks import Retrieval as Retrieval
from radapter_lite.tasks import Segmentation as Segmentation
from radapter_lite.tasks import Task as Task
from radapter_lite.training import TrainingConfig as TrainingConfig
from radapter_lite.training import train as train
from radapter_lite.tuned import Tuned as Tuned
from radapter_lite.version import __version__ as __version__
from radapter_lite.view.guesses import guess as guess
from radapter_lite.view.guesses import measured as measured
from radapter_lite.view.guesses import predictions as predictions
from radapter_lite.view.moving import move as move
from radapter_lite.view.sliders import alpha_slider as alpha_slider
from radapter_lite.view.sliders import encoder_map as encoder_map

__all__: list[str]

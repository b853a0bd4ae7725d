"""Tasks, one file each; a set of images alone means its classification, or retrieval if it has captions alone."""

from radapter_lite.data import ImageSet
from radapter_lite.data.table import NO_CLASS
from radapter_lite.tasks.classification import Classification
from radapter_lite.tasks.retrieval import Retrieval
from radapter_lite.tasks.segmentation import Segmentation
from radapter_lite.tasks.task import Batch, Task

__all__ = ["Batch", "Classification", "Retrieval", "Segmentation", "Task", "as_task"]


def as_task(images: ImageSet | Task) -> Task:
    """The task itself, or that of a set of images, as told above. Raises TypeError for anything else."""
    if isinstance(images, ImageSet):
        alone = "captions" in images.table and images.classes == [NO_CLASS]
        return Retrieval.of(images) if alone else Classification(images)
    if isinstance(images, Task):
        return images
    raise TypeError(f"expected an ImageSet, as load_images gives it, or a task over one, not a {type(images).__name__}")

"""How a delta lies on disk: tensors as safetensors, and beside them a readable JSON, with their size and checksum."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from radapter_lite.files import StrPath, whole, write_text

FORMAT = 1


def write_delta(path: StrPath, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `path`.safetensors and `path`.json."""
    tensor_path, json_path = _paths(path)
    write_tensors(tensor_path, tensors, {"delta": about["kind"]})
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    file = {"name": tensor_path.name, "bytes": tensor_path.stat().st_size, "sha256": _sha256(tensor_path)}
    content = {"format": FORMAT, **about, "tensors": shapes, "file": file}
    write_text(json_path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_delta(path: StrPath) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, and what the JSON says of them: their `kind`, and all that was noted beside.

    Raises FileNotFoundError if one of the two is missing, and ValueError if they are damaged or not of one delta.
    """
    tensor_path, json_path = _paths(path)
    for found, other in ((tensor_path, json_path), (json_path, tensor_path)):
        if not found.is_file():
            raise FileNotFoundError(f"{found} is missing: a delta is two files, it and {other.name} beside it")
    try:
        about = json.loads(json_path.read_text(encoding="utf-8"))
        file_format, shapes, file = about.pop("format"), about.pop("tensors"), about.pop("file")
        size, checksum, _, _ = file["bytes"], file["sha256"], about["kind"], about["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{json_path} does not describe a delta: save the delta again, or fetch it again") from error
    if file_format != FORMAT:
        raise ValueError(f"{json_path} has format {file_format} where {FORMAT} was expected: update radapter_lite")
    if (found_size := tensor_path.stat().st_size) != size or _sha256(tensor_path) != checksum:
        sizes = f"{found_size} bytes where {json_path.name} has {size}"
        raise ValueError(f"{tensor_path} is truncated, damaged or of another delta ({sizes}): copy both files again")
    tensors = load_file(tensor_path)
    if {name: list(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ValueError(f"the shapes in {json_path} are not those in {tensor_path.name}: copy both files again")
    return tensors, about


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that is either whole or not there."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"} | dict(metadata))


def _paths(path: StrPath) -> tuple[Path, Path]:
    base = Path(path)
    base = base.with_suffix("") if base.suffix in (".safetensors", ".json") else base
    return base.with_name(base.name + ".safetensors"), base.with_name(base.name + ".json")


def _sha256(path: Path) -> str:
    return hashlib.sha256(np.memmap(path, mode="r").data).hexdigest()

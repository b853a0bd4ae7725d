"""The kernel of notebooks and of the page is the Python that runs this, whatever kernels the machine has registered."""

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from radapter_lite.view.guesses import NOBODY


class ThisInterpreter(KernelSpecManager):
    """Knows one kernel, this Python; no progress bars or questions, which would be left on pages kept or served."""

    def find_kernel_specs(self) -> dict[str, str]:
        return {"python3": RESOURCES}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = get_kernel_dict(extra_arguments=["--log-level=CRITICAL"])
        return KernelSpec(resource_dir=RESOURCES, env={"TQDM_DISABLE": "1", NOBODY: "1"}, **command)


class Kernel(AsyncKernelManager):
    """Starts `ThisInterpreter`, for those that start a kernel by themselves."""

    @default("kernel_spec_manager")
    def _this_interpreter(self) -> KernelSpecManager:
        return ThisInterpreter()

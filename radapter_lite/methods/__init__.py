"""Ways to tune a backbone, a file for each family; `METHODS` lists them by the names of the tables.

Each takes a backbone, images or a task, and its settings, leaves the backbone as it was, and returns a `Tuned`. A
function is named as the method is, in letters that Python allows.
"""

from importlib import import_module

from radapter_lite.methods.registry import METHODS, load_tuned, recommended, register, tune

__all__ = ["METHODS", "load_tuned", "recommended", "register", "tune"]

# In the order of tables: what changes weights and has an α, what adds to the model, heads and caches, prompts.
for _name in ("r_adapter", "weights", "bottleneck", "heads", "prompts"):
    import_module(f"radapter_lite.methods.{_name}")

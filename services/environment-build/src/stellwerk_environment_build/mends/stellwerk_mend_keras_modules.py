"""Lets Keras 2.15 be imported by the module names of Keras before 2.13.

Installed by Stellwerk, because this environment's definition asked for an older Keras than can be
installed. ``keras.utils.np_utils``, ``keras.layers.core``, ``keras.engine.topology`` and the like
are gone from Keras 2.15, what was in them is not: each old name is a module with the public names
of the places where they are now.
"""
# mypy: ignore-errors

import sys

_UTILS = (
    "conv_utils", "data_utils", "generic_utils", "io_utils", "layer_utils", "np_utils", "vis_utils",
)  # fmt: skip
_LAYERS = (
    "advanced_activations", "convolutional", "convolutional_recurrent", "core", "embeddings",
    "local", "merge", "noise", "normalization", "pooling", "recurrent", "wrappers",
)  # fmt: skip
_ENGINE = ("keras.utils", "keras.models", "keras.layers")

_PLACES = {f"keras.utils.{name}": (f"keras.src.utils.{name}",) for name in _UTILS}
_PLACES.update({f"keras.layers.{name}": ("keras.layers",) for name in _LAYERS})
_PLACES.update(
    {
        "keras.engine": _ENGINE,
        "keras.engine.base_layer": _ENGINE,
        "keras.engine.input_layer": _ENGINE,
        "keras.engine.topology": _ENGINE,
        "keras.engine.training": _ENGINE,
        "keras.callbacks.callbacks": ("keras.callbacks",),
        "keras.backend.tensorflow_backend": ("tensorflow.compat.v1.keras.backend", "keras.backend"),
    }
)


class _OldNames:
    """Finds what no other finder has found."""

    def find_spec(self, name, *_):
        """A module for an old name of Keras."""
        if name not in _PLACES:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=name == "keras.engine")

    def create_module(self, _spec):
        """The usual one."""

    def exec_module(self, module):
        """Fill it; of two places the later one wins."""
        from importlib import import_module

        for place in _PLACES[module.__name__]:
            names = vars(import_module(place)).items()
            vars(module).update({name: value for name, value in names if name[:1] != "_"})


sys.meta_path.append(_OldNames())

"""Makes Keras 2.15 optimizers take ``lr`` and ``decay`` as Keras before 2.11 did.

Installed by Stellwerk, because this environment's definition asked for an older Keras than can be
installed. Keras 2.11 to 2.15 only warn about ``lr`` and train with the default rate, and refuse
``decay``. Here

- ``lr`` sets ``learning_rate``;
- ``decay`` (other than 0) gives the optimizer of the same name from ``keras.optimizers.legacy``,
  which still has it.
"""
# mypy: ignore-errors

import sys

_MODULE = "keras.src.optimizers.optimizer"


class _Trap:
    """Waits in ``sys.meta_path`` for Keras' optimizers to be imported, once."""

    def find_spec(self, name, path=None, target=None):
        """The module's own spec, with the change behind the end of its loading."""
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path)
        spec = next((each for each in found if each is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_mend(module):
                load(module)
                _mend(module._BaseOptimizer)

            spec.loader.exec_module = load_and_mend
        return spec


def _mend(base):
    """Change the base class before any optimizer is derived from it."""

    def derive(cls, **kwargs):
        super(base, cls).__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _with_old_names(cls.__init__)

    def create(cls, *args, **kwargs):
        if kwargs.get("decay"):
            from keras.optimizers import legacy

            older = getattr(legacy, cls.__name__, None)
            if older is not None:
                rate = {"learning_rate": kwargs.pop("lr")} if "lr" in kwargs else {}
                return older(
                    *args, **kwargs, **rate
                )  # not a ``cls``: its __init__ is not called again
        return object.__new__(cls)

    base.__init_subclass__ = classmethod(derive)
    base.__new__ = staticmethod(create)


def _with_old_names(init):
    """``init`` that also takes ``lr`` for ``learning_rate``, and a ``decay`` of 0."""
    import functools
    import inspect

    names = inspect.signature(init).parameters
    if "learning_rate" not in names or "lr" in names:
        return init

    @functools.wraps(init)
    def init_with_old_names(self, *args, **kwargs):
        if "lr" in kwargs:
            kwargs["learning_rate"] = kwargs.pop("lr")
        if not kwargs.get("decay", True):
            del kwargs["decay"]
        init(self, *args, **kwargs)

    return init_with_old_names


sys.meta_path.insert(0, _Trap())

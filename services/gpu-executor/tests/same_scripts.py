"""Scripts that must do the same bare, cold and warm: exit, output, files. Name → files."""

from textwrap import dedent


def _script(text: str, **files: str) -> dict[str, str]:
    return {"main.py": dedent(text), **{f"{name}.py": dedent(t) for name, t in files.items()}}


PLAIN = {
    "prints": _script("print('out'); import sys; print('err', file=sys.stderr)"),
    "exit-3": _script("import sys; print('x'); sys.exit(3)"),
    "exit-none": _script("import sys; sys.exit(None)"),
    "exit-message": _script("import sys; sys.exit('last words')"),
    "exit-large": _script("import sys; sys.exit(257)"),
    "exit-negative": _script("import sys; sys.exit(-1)"),
    "system-exit-subclass": _script(
        """
        class Bye(SystemExit): ...
        raise Bye(5)
        """
    ),
    "os-exit": _script("import os; os._exit(7)"),
    "exception": _script(
        """
        def f(n):
            return 1 / n
        try:
            f(0)
        except ZeroDivisionError as e:
            raise RuntimeError('outer') from e
        """
    ),
    "exception-group": _script("raise ExceptionGroup('two', [ValueError(1), KeyError('k')])"),
    "syntax-error": _script("x = (\n"),
    "bad-encoding": _script("# -*- coding: nonsense -*-\nprint(1)\n"),
    "null-byte": _script("x = 1\0\n"),
    "own-excepthook": _script(
        """
        import sys
        sys.excepthook = lambda kind, error, trace: print('hook', kind.__name__, error)
        raise ValueError('v')
        """
    ),
    "interrupted": _script("raise KeyboardInterrupt"),
    "interrupt-signal": _script("import os, signal; os.kill(os.getpid(), signal.SIGINT)\nprint(1)"),
    "abort": _script("import os; os.abort()"),
    "segfault": _script("import os; os.kill(os.getpid(), 11)"),
    "terminated": _script("import os; os.kill(os.getpid(), 15)"),
    "hung-up": _script("import os; os.kill(os.getpid(), 1)"),
    "signal-handlers": _script(
        """
        import signal
        for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP, signal.SIGCHLD,
                  signal.SIGXFSZ):
            print(n, signal.getsignal(n))
        print(signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1))
        """
    ),
    "atexit": _script(
        """
        import atexit, threading, time
        atexit.register(print, 'first registered')
        atexit.register(print, 'last registered')
        def late():
            time.sleep(0.2); print('thread')
        threading.Thread(target=late).start()
        print('main ends')
        """
    ),
    "atexit-raises": _script("import atexit\natexit.register(lambda: 1 / 0)\nprint('x')"),
    "daemon-thread": _script(
        """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        f = open('written.txt', 'w'); f.write('kept')
        """
    ),
    "finalizers": _script(
        """
        import helper
        class Noisy:
            def __del__(self): print('deleted')
        noisy = Noisy()
        loop = Noisy(); loop.self = loop
        f = open('unclosed.txt', 'w'); f.write('x' * 100)
        """,
        helper="g = open('helper.txt', 'w'); g.write('helped')",
    ),
    "closed-stdout": _script("import sys; sys.stdout.close(); sys.exit(4)"),
    "c-output": _script(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.puts(b'from C'); libc.fflush(None)
        print('from Python')
        """
    ),
    "grandchildren": _script(
        """
        import subprocess, sys
        subprocess.run(['sh', '-c', 'echo shell; exit 0'], check=True)
        subprocess.run([sys.executable, '-c', 'import sys; print(sys.argv)', 'a'], check=True)
        """
    ),
    "main-module": _script(
        """
        import sys
        print(__name__, __file__, __doc__, __package__, __spec__, type(__loader__).__name__)
        print(sorted(globals()))
        print(sys.argv, sys.path[0], sys.modules['__main__'].__dict__ is globals())
        print(sys.flags, sys.executable, sys.prefix, sys.stdout.encoding, sys.stdout.line_buffering)
        print(sys.stdin.read() == '', sys.stderr.errors, sys.orig_argv)
        """
    ),
    "future": _script("def f(a: undefined): ...\ntry:\n  f\nexcept NameError: print('no')\n"),
    "no-future": _script("try:\n  def f(a: undefined): ...\nexcept NameError: print('eager')\n"),
    "descriptors": _script(
        """
        import os
        print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[:4])
        """
    ),
    "process": _script(
        """
        import os, resource
        print(os.getcwd(), os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())
        print(os.umask(0), resource.getrlimit(resource.RLIMIT_CORE))
        print(sorted(os.environ.items()))
        """
    ),
    "environment": _script(
        """
        import os, subprocess, time
        os.environ['NEW'] = '1'
        print(subprocess.run(['sh', '-c', 'echo $NEW $HOME'], capture_output=True).stdout)
        os.environ['TZ'] = 'Asia/Tokyo'; time.tzset(); print(time.tzname)
        import tempfile; print(tempfile.gettempdir())
        """
    ),
    "sibling": _script(
        "import helper; print(helper.__file__, helper.x)", helper="print('once'); x = 5"
    ),
    "pickle-main": _script(
        """
        import pickle
        class Thing:
            def __init__(self): self.x = 1
        copy = pickle.loads(pickle.dumps(Thing())); print(type(copy).__module__, copy.x)
        """
    ),
    "mp-fork": _script(
        """
        import multiprocessing as mp
        def double(x): return 2 * x
        if __name__ == '__main__':
            with mp.get_context('fork').Pool(2) as pool: print(pool.map(double, range(4)))
        """
    ),
    "mp-spawn": _script(
        """
        import multiprocessing as mp
        def double(x): return 2 * x
        if __name__ == '__main__':
            with mp.get_context('spawn').Pool(2) as pool: print(pool.map(double, range(4)))
        """
    ),
    "executors": _script(
        """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        def double(x): return 2 * x
        if __name__ == '__main__':
            with ThreadPoolExecutor(2) as pool: print(list(pool.map(double, range(3))))
            with ProcessPoolExecutor(2) as pool: print(list(pool.map(double, range(3))))
        """
    ),
    "asyncio": _script(
        """
        import asyncio
        async def main():
            p = await asyncio.create_subprocess_exec('echo', 'sub'); await p.wait()
            await asyncio.sleep(0.01); print('async')
        asyncio.run(main())
        """
    ),
    "seeded": _script("import random; random.seed(1); print(random.random())"),
    "writes": _script(
        """
        import os
        os.makedirs('outputs/deep'); open('outputs/deep/a.bin', 'wb').write(bytes(range(256)))
        """
    ),
    "mp-forkserver": _script(
        """
        import multiprocessing as mp
        def double(x): return 2 * x
        if __name__ == '__main__':
            with mp.get_context('forkserver').Pool(2) as pool: print(pool.map(double, range(4)))
        """
    ),
    "threads": _script(
        """
        import sys, threading
        def fail(): raise ValueError('in a thread')
        t = threading.Thread(target=fail, name='worker'); t.start(); t.join()
        u = threading.Thread(target=sys.exit, args=(5,)); u.start(); u.join()
        print(threading.current_thread().name, threading.main_thread().ident == threading.get_ident())
        print(threading.active_count(), threading.get_native_id() == __import__('os').getpid())
        """
    ),
    "signal-default": _script(
        """
        import os, signal
        signal.signal(signal.SIGTERM, lambda n, f: print('asked', n))
        os.kill(os.getpid(), signal.SIGTERM)
        signal.raise_signal(signal.SIGUSR1)
        """
    ),
    "broken-pipe": _script(
        """
        import os
        r, w = os.pipe(); os.close(r)
        try: os.write(w, b'x')
        except BrokenPipeError as e: print(e.errno)
        """
    ),
    "limits": _script(
        """
        import resource
        print(resource.getrlimit(resource.RLIMIT_STACK), resource.getrlimit(resource.RLIMIT_AS))
        """
    ),
    "unbuffered": _script(
        """
        import os, sys
        sys.stdout.write('no newline'); os.write(1, b' then a system call'); print()
        print(sys.stdout.reconfigure(line_buffering=False), file=sys.stderr)
        """
    ),
    "child-variables": _script(
        """
        import subprocess, sys
        code = "import os; print([n for n in os.environ if 'STELLWERK_MARKS' in n])"
        subprocess.run([sys.executable, '-c', code], check=True)
        """
    ),
    "meta-path": _script(
        """
        import importlib.util, sys
        print(importlib.util.find_spec('no_such_module'), 'sitecustomize' in sys.modules)
        try: import no_such_module
        except ImportError as e: print(e, e.name)
        """
    ),
    "warnings": _script("import warnings; warnings.warn('careful')\nprint('after')"),
    "recursion": _script("import sys; print(sys.getrecursionlimit())"),
}

_SEEDED = """
    import os
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    import numpy as np, tensorflow as tf, keras
    keras.utils.set_random_seed(SEED)
    x = np.random.rand(2000, 20).astype('float32'); y = (x.sum(1) > 10).astype('int32')
    model = keras.Sequential([keras.layers.Dense(32, activation='relu'), keras.layers.Dropout(0.2),
                              keras.layers.Dense(2, activation='softmax')])
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])
    model.fit(x, y, epochs=2, batch_size=50, verbose=0)
    print([repr(float(v)) for v in model.evaluate(x, y, verbose=0)])
    print(repr(float(np.abs(model.predict(x[:8], verbose=0)).sum())))
"""

TENSORFLOW = {
    "tf-words": _script(
        "print('before')\nimport tensorflow as tf\nprint('after', tf.add(1, 1).numpy())"
    ),
    **{f"fit-seed-{n}": _script(_SEEDED.replace("SEED", str(n))) for n in (1, 2)},
    "tf-data": _script(
        """
        import tensorflow as tf
        def f(x): return tf.py_function(lambda v: v.numpy() * 2, [x], tf.int64)
        data = tf.data.Dataset.range(6).map(f, num_parallel_calls=4, deterministic=True).batch(3)
        print([batch.numpy().tolist() for batch in data])
        """
    ),
    "tf-threads": _script(
        """
        import tensorflow as tf
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices('CPU')[0],
            [tf.config.LogicalDeviceConfiguration(), tf.config.LogicalDeviceConfiguration()])
        print(len(tf.config.list_logical_devices('CPU')), float(tf.reduce_sum(tf.ones((9, 9)))))
        """
    ),
    "mirrored": _script(
        """
        import os
        import tensorflow as tf
        strategy = tf.distribute.MirroredStrategy(['/cpu:0'])
        with strategy.scope(): v = tf.Variable(2.0)
        print(strategy.num_replicas_in_sync, v.values[0].numpy())
        """
    ),
    "xla": _script(
        """
        import tensorflow as tf
        @tf.function(jit_compile=True)
        def f(x): return tf.reduce_sum(x * x)
        print(float(f(tf.range(10.0))))
        """
    ),
    "save-load": _script(
        """
        import keras, numpy as np
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
        name = 'model.keras'; model.save(name)
        again = keras.models.load_model(name)
        x = np.ones((1, 4)); print(np.allclose(model.predict(x, verbose=0), again.predict(x, verbose=0)))
        import os; os.unlink(name)
        """
    ),
    "keras-home": _script(
        """
        import os, keras
        from keras.src import backend
        home = getattr(getattr(backend, 'config', None), '_KERAS_DIR', os.path.expanduser('~'))
        print(home.startswith(os.environ['HOME']), keras.config.backend()
              if hasattr(keras, 'config') else keras.backend.backend())
        """
    ),
    "tf-environment": _script(
        """
        import os
        os.environ['TF_NUM_INTRAOP_THREADS'] = '1'; os.environ['TF_DETERMINISTIC_OPS'] = '1'
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        import tensorflow as tf
        print(float(tf.reduce_sum(tf.ones((9, 9)))), tf.config.list_physical_devices('GPU'))
        from tensorflow.python.framework import config
        print(config.is_op_determinism_enabled())
        """
    ),
    "tf-keras-only": _script(
        """
        from tensorflow.keras.models import Sequential
        from tensorflow.keras.layers import Dense
        print(Sequential.__name__, Dense(2).units)
        """
    ),
    "custom-loop": _script(
        """
        import numpy as np, tensorflow as tf
        tf.random.set_seed(5); np.random.seed(5)
        w = tf.Variable(tf.random.normal((3, 1))); x = np.random.rand(20, 3).astype('float32')
        @tf.function
        def step(x):
            with tf.GradientTape() as tape: loss = tf.reduce_mean((x @ w - 1.0) ** 2)
            w.assign_sub(0.1 * tape.gradient(loss, w)); return loss
        for _ in range(3): loss = step(x)
        print(repr(float(loss)), w.numpy().tolist())
        """
    ),
    "loud-fit": _script(
        """
        import numpy as np, tensorflow as tf
        tf.keras.utils.set_random_seed(4)
        class Told(tf.keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None): print('batch', batch, sorted(logs))
        model = tf.keras.Sequential([tf.keras.layers.Dense(1)]); model.compile('sgd', 'mse')
        model.fit(np.ones((8, 2)), np.ones(8), batch_size=4, epochs=1, verbose=0, callbacks=[Told()])
        """
    ),
    "plot": _script(
        """
        import matplotlib.pyplot as plt
        plt.plot([1, 2]); plt.savefig('p.png', metadata={'Software': None}); print(plt.get_backend())
        """
    ),
    "plot-settings": _script(
        """
        import matplotlib, matplotlib.style, os
        from matplotlib.texmanager import TexManager
        print(matplotlib.get_configdir(), matplotlib.get_cachedir())
        print(getattr(matplotlib.style, 'USER_LIBRARY_PATHS', None), TexManager._cache_dir)
        """
    ),
}

_LEARN = """
    import numpy as np, keras
    keras.utils.set_random_seed(7)
    x = np.random.rand(400, 12).astype('float32'); y = (x.sum(1) > 6).astype('int32')
    model = keras.Sequential([keras.layers.Dense(16, activation='relu'), keras.layers.Dropout(0.2),
                              keras.layers.Dense(2, activation='softmax')])
    model.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])
    model.fit(x, y, epochs=2, batch_size=50, verbose=2 if LOUD else 0)
    print([repr(float(v)) for v in model.evaluate(x, y, verbose=0)])
    print(repr(float(np.abs(model.predict(x[:8], verbose=0)).sum())))
"""

KERAS = {
    "keras-fit": _script(_LEARN.replace("LOUD", "False")),
    "keras-save-load": TENSORFLOW["save-load"],
    "keras-import-error": _script("from keras import no_such_name"),
    "keras-only-import": _script("import sys, keras; print('keras' in sys.modules)"),
    "keras-late-import": _script(
        """
        import sys
        print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])
        def later():
            from keras.src.callbacks import Callback
            return Callback.__module__
        print(later(), 'keras' in sys.modules)
        """
    ),
}

JAX = {
    "jax-grad": _script(
        """
        import jax, jax.numpy as jnp
        f = jax.jit(jax.grad(lambda w: ((w * jnp.arange(4.0)) ** 2).sum()))
        print(f(jnp.ones(4)).tolist(), jax.devices()[0].platform)
        print(jax.random.normal(jax.random.key(3), (3,)).tolist())
        """
    ),
    "jax-x64": _script(
        """
        import jax
        jax.config.update('jax_enable_x64', True)
        import jax.numpy as jnp
        print(jnp.ones(2).dtype, float(jnp.sum(jnp.arange(5.0))))
        """
    ),
    "jax-two-devices": _script(
        """
        import os
        os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=2'
        import jax
        print(jax.device_count())
        """
    ),
}

TORCH = {
    "torch-autograd": _script(
        """
        import torch
        torch.manual_seed(3)
        w = torch.randn(4, requires_grad=True)
        loss = ((w * torch.arange(4.0)) ** 2).sum(); loss.backward()
        print(w.tolist(), w.grad.tolist(), torch.rand(2).tolist())
        """
    ),
    "torch-threads": _script(
        """
        import torch
        torch.set_num_threads(2); torch.manual_seed(1)
        a = torch.randn(200, 200); print(torch.get_num_threads(), float((a @ a).sum()))
        """
    ),
    "torch-loader": _script(
        """
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        if __name__ == '__main__':
            data = TensorDataset(torch.arange(8))
            print([b[0].tolist() for b in DataLoader(data, batch_size=4, num_workers=2)])
        """
    ),
    "torch-save": _script(
        """
        import torch
        torch.save({'w': torch.ones(3)}, 'w.pt')
        print(torch.load('w.pt')['w'].tolist())
        import os; os.unlink('w.pt')
        """
    ),
}


def seeded(seed: int, has: list[str]) -> dict[str, str]:
    """A script whose result is its seed's, with the frameworks that there are."""
    if "tensorflow" in has:
        return _script(_SEEDED.replace("SEED", str(seed)))
    if "keras" in has:
        text = _LEARN.replace("LOUD", "False")
        return _script(text.replace("set_random_seed(7)", f"set_random_seed({seed})"))
    return _script(f"import random; random.seed({seed}); print([random.random() for _ in 'abc'])")


UNSEEDED = """
import random
print(random.random())
try: import numpy
except ImportError: pass
else: print(numpy.random.rand())
"""

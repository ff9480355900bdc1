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
        print(np.allclose(model(np.ones((1, 4))), again(np.ones((1, 4)))))
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
    "plot": _script(
        """
        import matplotlib.pyplot as plt
        plt.plot([1, 2]); plt.savefig('p.png', metadata={'Software': None}); print(plt.get_backend())
        """
    ),
}

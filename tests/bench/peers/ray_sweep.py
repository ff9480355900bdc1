"""The sweep with Ray Tune, `reuse_actors=True`: two processes live on, trials share them.

The grid comes as JSON on stdin, accuracies go out as JSON in its order.
"""

import json
import os
import sys


def main(trial_folder: str, data: str) -> None:
    """Run all trials, two at a time."""
    grid = json.load(sys.stdin)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune

    def objective(config: dict) -> None:
        sys.path.insert(0, trial_folder)
        from trial import train

        found = train(data, images=config["images"], **grid[config["index"]])
        tune.report({"accuracy": found["accuracy"]})

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    images = int(os.environ.get("STELLWERK_BENCH_IMAGES", "30000"))
    tuner = tune.Tuner(
        objective,
        param_space={"index": tune.grid_search(list(range(len(grid)))), "images": images},
        tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=True),
        run_config=tune.RunConfig(verbose=0),
    )
    results = tuner.fit()
    found = {each.config["index"]: each.metrics["accuracy"] for each in results}
    print(json.dumps([found[index] for index in range(len(grid))]), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])

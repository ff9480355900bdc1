import argparse
import os
import pickle

from azureml.core.run import Run

parser = argparse.ArgumentParser()
parser.add_argument("--reg", type=float, default=0.5)
parser.add_argument("--alphas", type=int, default=3)
args = parser.parse_args()

run = Run.get_context()
os.makedirs("./outputs", exist_ok=True)
for step in range(args.alphas):
    alpha = step / 10 + args.reg
    run.log("alpha", alpha)
    run.log("mse", 3000 + (alpha - 0.6) ** 2)
    name = "ridge_{0:.2f}.pkl".format(alpha)
    with open(os.path.join("./outputs", name), "wb") as file:
        pickle.dump({"alpha": alpha}, file)
    print("alpha is {0:.2f}".format(alpha), os.environ.get("MESSAGE", ""))
run.log("done", True)
run.log_list("all", [1, 2, 3])
run.tag("stage", "trained")

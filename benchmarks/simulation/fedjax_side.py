"""FedJAX's side of ``benchmarks.simulation``: its own FedAvg and evaluation.

The job runs twice from the same initial weights: a first round compiles, then all rounds are timed. Clients
train one after another through a jitted step. The backend ``pmap``, over two host devices, took eight times
the processor time for clients of 60 images, and needs more functions given back to jax.

Usage: JOB=FOLDER REPLY=reply.json python -c 'import fedjax_side; fedjax_side.main()'
"""

from __future__ import annotations

import time

began = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

jax.tree_map = jax.tree_util.tree_map  # removed from jax, but haiku and FedJAX call it

import fedjax  # noqa: E402
from fedjax.algorithms import fed_avg  # noqa: E402
from side_job import job, reply  # noqa: E402


def forward(params: dict[str, jnp.ndarray], batch: dict[str, jnp.ndarray], rng: object = None) -> jnp.ndarray:
    """Return the logits of the network with one hidden layer."""
    hidden = jax.nn.relu(batch["x"] @ params["fc1.weight"] + params["fc1.bias"])
    return hidden @ params["fc2.weight"] + params["fc2.bias"]


MODEL = fedjax.Model(
    init=lambda rng: None,
    apply_for_train=forward,
    apply_for_eval=forward,
    train_loss=lambda batch, logits: fedjax.metrics.unreduced_cross_entropy_loss(batch["y"], logits),
    eval_metrics={"accuracy": fedjax.metrics.Accuracy()},
)


def main() -> None:
    """Run the job."""
    settings, data = job().settings, job()
    # jax multiplies from the left: (features, hidden). The bytes are those of the other sides.
    initial = {name: jnp.asarray(value.T) for name, value in data.weights.items()}
    clients = [
        (str(edge), fedjax.ClientDataset({"x": data.x[own], "y": data.y[own]}), jax.random.PRNGKey(edge))
        for edge, own in enumerate(data.parts)
    ]
    tests = fedjax.ClientDataset({"x": data.x_test, "y": data.y_test})
    fedjax.set_for_each_client_backend("jit")
    algorithm = fed_avg.federated_averaging(
        fedjax.model_grad(MODEL),
        fedjax.optimizers.sgd(settings["lr"]),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=settings["batch_size"], num_epochs=1),
    )

    def rounds(count: int) -> tuple[float, float]:
        """Return the seconds of ``count`` rounds, and the accuracy of the last average."""
        started, state, accuracy = time.perf_counter(), algorithm.init(initial), 0.0
        for _ in range(count):
            state, _ = algorithm.apply(state, clients)
            batches = tests.padded_batch(batch_size=256)
            accuracy = float(fedjax.evaluate_model(MODEL, state.params, batches)["accuracy"])
        return time.perf_counter() - started, accuracy

    rounds(1)
    seconds, accuracy = rounds(settings["rounds"])
    reply(seconds, time.perf_counter() - began, accuracy, settings["rounds"])

"""Measure the speed of simulation: sheaf, other simulators and a bare loop, on the same clients.

All sides train FedAvg from the same initial weights on the same split, and evaluate the global model after
each round. They take turns, in reversed order every second time.

side           what runs, and what the seconds count
-------------  ---------------------------------------------------------------------------------------------
``sheaf``      default settings; a complete run with its data, journal and files
``one_by_one`` sheaf with one site after another
``bare``       a loop without a framework on normalised images, at the best number of threads
``flower``     Flower's simulation on Ray; the mean round but the first, without the start
``fedjax``     FedJAX's FedAvg; all rounds, without import, copying of the images and compilation
``pfl``        pfl-research's simulated backend, PyTorch, a process on each core; mean round as ``flower``

Flower, FedJAX and pfl-research run in environments of their own (``flower_side``, ``fedjax_side``,
``pfl_side``), which ``setup`` creates; without ``--environments`` they are left out. The bare loop and
``one_by_one`` use two threads only for the large network: on mini-batches of ten small images, two OpenMP
threads spin for each other, which took minutes instead of seconds.

``vs_…`` is the speed-up of sheaf over a side, from medians; ``ranges`` gives it turn by turn. ``others`` is
the number of cores that other programs used during a run (a simulator's own processes included).
``peak_fraction`` is the fraction of the machine's measured peak that training reached: see ``peak``.
``profile`` says where sheaf's processor time goes: see ``profiling``.

With ``--device cuda`` sheaf and the bare loop compute on the GPU, which also stores the loop's images, and
the rows go to ``simulation-cuda.json``.

Set up: python -m benchmarks.simulation setup FOLDER
Run:    SHEAF_DATA=… python -m benchmarks.simulation run --environments FOLDER
        SHEAF_DATA=… python -m benchmarks.simulation profile
"""

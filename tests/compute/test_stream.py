"""What would grow with every piece of a long run does not: what the scheduler remembers, what a
worker notes."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
from distributed.scheduler import key_split_group

import cryolike_dask as cld
from cryolike_dask.compute.stream import WorkItem, lean, stream, task


def pieces(n, values):
    """Graphs of arrays in two blocks, as those of a run are."""

    def build(k):
        array = da.from_array(np.full(4, k), chunks=2) + 1
        return task(
            "keep",
            lambda blocks: values.append([int(b.sum()) for b in blocks]),
            list(array.to_delayed()),
        )

    return [WorkItem(f"piece {k}", 1, lambda k=k: build(k)) for k in range(n)]


def test_the_scheduler_remembers_no_more_after_more_pieces(cluster):
    def remembered():
        spans = cluster.cluster.scheduler.extensions["spans"].spans.values()
        return {group.name for span in spans for group in span.groups}

    before, found = remembered(), []
    for n in (2, 12):
        stream(pieces(n, []), cluster, n_images=n, progress=False, title="images")
        found.append(remembered() - before)
    assert found[0] == found[1]
    assert 0 < len(found[0]) < 6


@pytest.mark.parametrize("chunks", [5, 2])
def test_keys_are_text_and_say_what_they_said_and_results_are_the_same(build, chunks):
    images, templates = build.stacks(n_images=5, n_templates=7)
    poses = cld.compute_optimal_pose(images.chunk(chunks), templates.chunk(3), device="cpu")
    whole = {name: variable.data.rechunk(-1) for name, variable in poses.data_vars.items()}
    graph = task(
        "last",
        dict,
        {name: array.to_delayed(optimize_graph=False).item() for name, array in whole.items()},
    )
    plain = lean(graph)
    keys = list(plain.__dask_graph__())
    assert all(isinstance(key, str) for key in keys)
    assert plain.key == graph.key
    whole_in_one_block = chunks == 5
    assert len(dict(graph.__dask_graph__())) - len(keys) == (
        len(poses.data_vars) if whole_in_one_block else 0
    )
    groups = {key_split_group(key) for key in keys}
    assert {"last", "optimal-pose", "optimal-pose-aggregate"} <= groups
    assert not any(character.isdigit() for group in groups for character in group)
    found, wanted = dask.compute(plain, graph, scheduler="synchronous")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_blocks_that_the_last_task_waits_for_stay_tasks_of_their_own():
    """Values that are written region by region must never be together in one task."""
    blocks = [task(f"block-{k}", np.full, 2, k) for k in range(3)]
    regions = [task(f"region-{k}", np.sum, block) for k, block in enumerate(blocks)]
    last = task("last", sum, regions)
    plain = lean(last)
    assert len(plain.__dask_graph__()) == 7
    assert plain.compute(scheduler="synchronous") == 6
    shared = task("whole", np.arange, 5)
    kept = task(
        "kept",
        sum,
        [task("part", np.sum, shared), task("other", np.max, shared), task("after", str, shared)],
    )
    both = task(
        "last", lambda *values: values, task("first", np.min, shared), task("second", np.max, kept)
    )
    assert len(lean(both).__dask_graph__()) == 8  # the whole is needed elsewhere too


def test_the_dashboard_has_a_bar_for_each_step_and_one_for_bookkeeping(build):
    """Each step says structure and stack; whatever only hands on has one name."""
    images, templates = build.stacks(n_images=5, n_templates=7)
    poses = cld.compute_optimal_pose(
        images.chunk(2), templates.chunk(3), device="cpu", tolerance=1e-7
    )
    values = [
        variable.data.rechunk(-1).to_delayed(optimize_graph=False).item()
        for variable in poses.data_vars.values()
    ]
    name = "structure-stack_000000"
    graph = task(f"write-optimal-pose-{name}", len, values)
    plain = lean(graph, name, "template0-stack_000000")
    keys = list(plain.__dask_graph__())
    assert {key_split_group(key) for key in keys} == {
        "radial-basis-structure",
        "optimal-pose-block-structure",
        "optimal-pose-likelihood-structure",
        "write-optimal-pose-structure",
        "bookkeeping",
    }
    steps = [key for key in keys if not key.startswith("bookkeeping-")]
    assert all(name in key for key in steps)
    assert len(keys) == len(lean(graph).__dask_graph__())
    assert plain.compute(scheduler="synchronous") == len(values)


def test_workers_of_ours_keep_no_profile_and_few_messages(cluster):
    scheduler = cluster.cluster.scheduler
    assert {comm.recent_message_log.maxlen for comm in scheduler.stream_comms.values()} == {50}
    enabled = cluster.run(dask.config.get, "distributed.worker.profile.enabled")
    assert set(enabled.values()) == {False}
    assert dask.config.get("distributed.worker.profile.enabled") is True


def test_blocks_are_heard_of_all_the_same(cluster, build):
    """Progress is told by messages of which only the last few are kept."""
    heard = []
    cluster.subscribe_topic("blocks of a test", lambda event: heard.append(event[1]))

    def tell(k):
        from distributed import get_worker

        get_worker().log_event("blocks of a test", k)

    cluster.gather(cluster.map(tell, range(150), pure=False))
    cluster.unsubscribe_topic("blocks of a test")
    assert sorted(heard) == list(range(150))

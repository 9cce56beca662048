"""Parts on a Ray cluster: the same tables, also if a worker is killed in the middle.

The cluster is that of `RAY_ADDRESS`, or one of this machine.
"""

import sys
from pathlib import Path

import pytest
from tests.unit.use.batch.conftest import Begin, dying_once

from vitreous.errors import ConfigError
from vitreous.use.batch.cluster import connected
from vitreous.use.batch.write import Engine

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and processes to the system


@pytest.fixture(autouse=True)
def _workers_need_no_tests() -> None:
    """Send the classes of tests to the workers, which cannot import them."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[dying_once.__module__])


def test_ray_writes_the_same_tables_although_a_worker_is_killed(begin: Begin, tmp_path: Path) -> None:
    here = begin(tmp_path / "here")
    engine, marker = Engine("ray", "cpu", workers=2), tmp_path / "killed"
    there = begin(tmp_path / "there", engine, change=dying_once(marker))
    assert marker.exists()
    assert len(there.manifest["done"]) == there.num_parts == 6
    for name in here.manifest["done"]:
        assert (there.path / name).read_bytes() == (here.path / name).read_bytes()


def test_address_without_a_cluster_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"address=127\.0\.0\.1:9: no Ray cluster was"), connected("127.0.0.1:9"):
        pass

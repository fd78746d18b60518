"""What a restarted node dials."""

from mesh.disk.neighbours import NEIGHBOURS_MAX, NeighbourFile
from protocols.ids import PeerId


def test_what_was_saved_is_loaded(tmp_path):
    path = tmp_path / "neighbours"
    NeighbourFile(path).save({PeerId("b"): ("/ip4/127.0.0.1/tcp/2",), PeerId("a"): ()})
    assert NeighbourFile(path).load() == {"a": (), "b": ("/ip4/127.0.0.1/tcp/2",)}


def test_no_file_and_junk_are_nobody(tmp_path):
    path = tmp_path / "neighbours"
    assert NeighbourFile(path).load() == {}
    path.write_bytes(b"junk")
    assert NeighbourFile(path).load() == {}


def test_nobody_there_forgets_nobody(tmp_path):
    """A node that is alone now still knows where the others were."""
    file = NeighbourFile(tmp_path / "neighbours")
    file.save({PeerId("a"): ("x",)})
    file.save({})
    assert file.load() == {"a": ("x",)}


def test_their_number_is_bounded(tmp_path):
    file = NeighbourFile(tmp_path / "neighbours")
    file.save({PeerId(f"{n:03}"): () for n in range(200)})
    assert len(file.load()) == NEIGHBOURS_MAX


def test_a_disk_that_takes_nothing_is_no_reason_to_stop(tmp_path):
    NeighbourFile(tmp_path / "missing" / "neighbours").save({PeerId("a"): ("x",)})

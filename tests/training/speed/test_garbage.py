"""Collections come when they are due."""

import gc

from puna.training.speed import scheduled_collection


class Cycle:
    n_alive = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.n_alive += 1

    def __del__(self) -> None:
        Cycle.n_alive -= 1


def test_garbage_waits_for_its_update() -> None:
    with scheduled_collection(3) as collect:
        assert not gc.isenabled()
        Cycle()
        alive = []
        for n_done in (1, 2, 3):
            collect(n_done)
            alive.append(Cycle.n_alive)
    assert alive == [1, 1, 0]
    assert gc.isenabled()

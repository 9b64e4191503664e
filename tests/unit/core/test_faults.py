from headrace.core.faults import POINTS, FaultPoints


def test_without_a_test_nothing_happens_at_a_fault_point():
    points = FaultPoints()
    for point in POINTS:
        points.reach(point)
        assert not points.watches(point)

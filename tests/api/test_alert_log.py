from vibezen.metrics.api.alert_log import MAX_ALERTS, MAX_BYTES, Alert, AlertLog


def alert(number: int, size: int = 2) -> Alert:
    return Alert((number, 0), b"x" * size)


def test_everything_after_a_position_is_told_in_order() -> None:
    log = AlertLog((1, 0))
    log.note(alert(2))
    log.note(alert(3))
    assert log.since((1, 0)) == [alert(2), alert(3)]
    assert log.since((2, 0)) == [alert(3)]
    assert log.since((3, 0)) == []
    assert log.since((0, 5)) is None


def test_log_can_be_made_to_reach_further_back() -> None:
    log = AlertLog((5, 0))
    log.note(alert(6))
    log.prepend((2, 0), [alert(3), alert(4)])
    assert log.since((2, 0)) == [alert(3), alert(4), alert(6)]
    assert log.since((3, 0)) == [alert(4), alert(6)]
    assert log.since((1, 0)) is None


def test_log_is_bounded_in_number_and_bytes_and_honest_about_it() -> None:
    log = AlertLog((0, 0))
    for number in range(1, MAX_ALERTS + 2):
        log.note(alert(number))
    assert log.since((0, 0)) is None
    told = log.since((1, 0))
    assert told is not None
    assert len(told) == MAX_ALERTS
    log.note(alert(900, MAX_BYTES))
    assert log.since((MAX_ALERTS, 0)) is None
    assert log.since((MAX_ALERTS + 1, 0)) == [alert(900, MAX_BYTES)]

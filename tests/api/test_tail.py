from vibezen.metrics.api.tail import Standing


def test_new_stream_is_no_continuation_however_long_it_is() -> None:
    before = Standing(first=(1, 0), last=(2, 0), length=2, added=2)
    grown = Standing(first=(1, 0), last=(9, 0), length=4, added=4)
    trimmed = Standing(first=(3, 0), last=(9, 0), length=2, added=4)
    assert grown.follows(before)
    assert trimmed.follows(before)
    assert trimmed.follows(grown)
    assert before.follows(Standing()), "it had not begun"
    assert not Standing(first=(5, 0), last=(9, 0), length=4, added=4).follows(before)
    assert not Standing(first=(5, 0), last=(9, 0), length=4, added=4).follows(trimmed)
    assert not Standing().follows(before)

import cv2
import numpy as np

from model.common.images import contact_sheet, evenly


def test_indices_reach_from_the_first_to_the_last() -> None:
    assert [evenly(count, 3) for count in (0, 1, 2, 3, 9)] == [[], [0], [0, 1], [0, 1, 2], [0, 4, 8]]


def test_a_sheet_is_filled_row_by_row_and_white_where_nothing_is() -> None:
    tiles = [np.full((8, 16, 3), shade, np.uint8) for shade in (0, 80, 160)]
    sheet = cv2.imdecode(np.frombuffer(contact_sheet(tiles, 2, 10_000), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    assert sheet[4::8, 8::16].tolist() == [[0, 80], [160, 255]]
    empty = cv2.imdecode(np.frombuffer(contact_sheet([], 3, 10_000), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert empty is not None
    assert (empty.shape, int(empty.min())) == ((240, 960), 255)

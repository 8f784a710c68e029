"""Counting what a compiled program does, on texts like XLA's."""

import pytest

from benchmarks.kernels import Count, count_kernels

pytestmark = pytest.mark.cpu_only("reads texts")

# A loop of 4 turns, each with a fusion that takes a row of 8 numbers out of 10 rows and puts it
# into another array, and a product; before it a copy.
PROGRAM = """HloModule jit_f

%fused (p0: f32[10,8], p1: s32[], p2: f32[10,8]) -> f32[10,8] {
  %p0 = f32[10,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %p2 = f32[10,8]{1,0} parameter(2)
  %row = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,8}
  ROOT %put = f32[10,8]{1,0} dynamic-update-slice(%p2, %row, %p1, %p1)
}

%body (t: (f32[10,8], s32[])) -> (f32[10,8], s32[]) {
  %t = (f32[10,8]{1,0}, s32[]) parameter(0)
  %x = f32[10,8]{1,0} get-tuple-element(%t), index=0
  %n = s32[] get-tuple-element(%t), index=1
  %moved = f32[10,8]{1,0} fusion(%x, %n, %x), kind=kLoop, calls=%fused
  %product = bf16[10,10]{1,0} custom-call(%moved, %moved), custom_call_target="__cublas$gemm"
  ROOT %out = (f32[10,8]{1,0}, s32[]) tuple(%moved, %n)
}

ENTRY %main (a: f32[10,8]) -> f32[10,8] {
  %a = f32[10,8]{1,0} parameter(0)
  %b = f32[10,8]{1,0} copy(%a)
  %zero = s32[] constant(0)
  %start = (f32[10,8]{1,0}, s32[]) tuple(%b, %zero)
  %end = (f32[10,8]{1,0}, s32[]) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %result = f32[10,8]{1,0} get-tuple-element(%end), index=0
}
"""  # noqa: E501
COPY, FUSION, PRODUCT = 2 * 320, 2 * 32 + 4, 2 * 320 + 200
CUT = """000: kCopy         [source | sink] kCopy
001: kWhile        [prev=000 (1) | next=000 (1)]
condition:
    002: kCustomKernel [source | sink] loop_compare_fusion
  body:
    000: kCommandBuffer [source | sink]
        003: kCustomKernel [source | sink] fused
    004: kGemm         [prev=000 (1) | sink] kGemm
"""
WHOLE = """000: kCommandBuffer [source | sink]
    001: kCopy         [source | sink] kCopy
    002: kWhile        [prev=001 (1) | sink]
condition:
        003: kCustomKernel [source | sink] loop_compare_fusion
      body:
        004: kCustomKernel [source | sink] fused
        005: kGemm         [prev=004 (1) | sink] kGemm
"""


@pytest.mark.parametrize(("thunks", "launches"), [(CUT, 1 + 4 * 3), (WHOLE, 1)])
def test_loop_iterations_count_and_a_command_buffer_is_one_launch(thunks, launches, tmp_path):
    (tmp_path / "module.thunk_sequence_after_thunk_passes.txt").write_text(thunks)
    n_bytes = COPY + 4 * (FUSION + PRODUCT)
    assert count_kernels(PROGRAM, tmp_path) == Count(1 + 4 * 3, launches, n_bytes)


def test_missing_listing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="thunk_sequence_after_thunk_passes"):
        count_kernels(PROGRAM, tmp_path)

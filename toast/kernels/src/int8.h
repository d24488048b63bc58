// How quantised activations lie in memory, and how large they may be so that sums of whole numbers cannot overflow.
// Included once per variant, before its instructions; knows no instruction.
#pragma once
#include "kernels.h"

namespace toast::TOAST_VARIANT {

// A dword of eight 4-bit weights falls apart into even k (low nibbles) and odd k (high nibbles): activations that meet
// 4-bit weights lie in that order within each eight. Where k lies:
static inline int order_of(int k, int bits) { return bits == 4 ? (k & ~7) | (k & 1) << 2 | (k & 6) >> 1 : k; }
// What lies where, of 16.
constexpr uint8_t ORDER[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};

// `vpmaddubsw` (AVX2) adds pairs of products into int16. If the positive (and the negative) activations of a lane sum
// to at most 520, products with 6-bit codes cannot overflow: 63 x 520 < 32768.
constexpr int MOST = 520;
// So many k of one scale are summed as whole numbers: twice 255 * 2 * MOST times the largest scale, 2048, is below
// 2^31; with codes of 4 bits twice 15 * 32 * 127 times 16,512.
constexpr int SPAN = 2 * ACTIVATION_GROUP;

}  // namespace toast::TOAST_VARIANT

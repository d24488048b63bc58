// The variant's integer lanes (int8_*.h), and the order of quantised activations and of sums over k.
#pragma once
#include "vec.h"

namespace toast::TOAST_VARIANT {

// So many k are unpacked at a time: a panel of them fits the first cache.
constexpr int CHUNK = 768;

// A dword of eight 4-bit weights falls apart into even k (low nibbles) and odd k (high nibbles):
// activations that meet 4-bit weights lie in that order within each eight.
static inline int place(int k, int bits) { return bits == 4 ? (k & ~7) | (k & 1) << 2 | (k & 6) >> 1 : k; }
// What lies where, of 16.
constexpr uint8_t PLACES[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};

// With no more than that in the q of one sign, at even (k % 4 < 2) as at odd pairs of neighbours, a sum of products
// with codes of 6 bits over either holds in 16 bits: 63 * 520 < 32768.
constexpr int MOST = 520;
// So many k of one scale are summed as whole numbers: twice 255 * 2 * MOST times the largest scale, 2048, is below
// 2^31; with codes of 4 bits twice 15 * 32 * 127 times 16,512.
constexpr int SPAN = 2 * ACTIVATION_GROUP;

}  // namespace toast::TOAST_VARIANT

#if defined(TOAST_AVX512)
#include "int8_avx512.h"
#elif defined(TOAST_AVX2)
#include "int8_avx2.h"
#elif defined(TOAST_NEON)
#include "int8_neon.h"
#else
#include "int8_generic.h"
#endif

// CRC-32 (zlib's: polynomial 0x04C11DB7, reflected) of raw memory, for little-endian CPUs.
// Knows nothing of files: checksum_work.cpp reads them.
// Only C headers, as in vec.h.
#include "vec.h"

namespace toast::TOAST_VARIANT {
namespace {

#if defined(TOAST_CRC_INSTRUCTIONS)

uint32_t update(uint32_t crc, const uint8_t* x, size_t n) {
  for (; n >= 8; x += 8, n -= 8) {
    uint64_t word;
    memcpy(&word, x, 8);
    crc = crc_of(crc, word);
  }
  for (; n; x++, n--) crc = crc_of(crc, *x);
  return crc;
}

#else

// sums[k][b]: the remainder of the byte b and k zero bytes after it.
struct Tables {
  uint32_t sums[8][256];
};
constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t b = 0; b < 256; b++) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    t.sums[0][b] = crc;
  }
  for (int k = 1; k < 8; k++)
    for (int b = 0; b < 256; b++) t.sums[k][b] = t.sums[k - 1][b] >> 8 ^ t.sums[0][t.sums[k - 1][b] & 255];
  return t;
}
constexpr Tables tables = make_tables();

// Eight bytes a step (Kounavis and Berry 2008, "slicing by 8").
uint32_t update(uint32_t crc, const uint8_t* x, size_t n) {
  for (; n >= 8; x += 8, n -= 8) {
    uint64_t word;
    memcpy(&word, x, 8);
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; k++) crc ^= tables.sums[7 - k][word >> 8 * k & 255];
  }
  for (; n; x++, n--) crc = crc >> 8 ^ tables.sums[0][(crc ^ *x) & 255];
  return crc;
}

#endif

#if defined(TOAST_CRC_FOLDS)

// Gopal et al. 2009, "Fast CRC computation for generic polynomials using PCLMULQDQ": four sums of 128 bits
// run over the message. At the end they are 16 bytes with its remainder, and the tables do these.
uint32_t folded(uint32_t crc, const uint8_t* x, size_t n) {
  if (n < 64) return update(crc, x, n);
  const __m128i by64 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4), by16 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
  auto load = [&](int i) { return _mm_loadu_si128((const __m128i*)x + i); };
  __m128i s[4] = {_mm_xor_si128(load(0), _mm_cvtsi32_si128(crc)), load(1), load(2), load(3)};
  for (x += 64, n -= 64; n >= 64; x += 64, n -= 64)
    for (int i = 0; i < 4; i++) s[i] = crc_fold(s[i], by64, load(i));
  for (int i = 1; i < 4; i++) s[0] = crc_fold(s[0], by16, s[i]);
  for (; n >= 16; x += 16, n -= 16) s[0] = crc_fold(s[0], by16, load(0));
  uint8_t rest[16];
  _mm_storeu_si128((__m128i*)rest, s[0]);
  return update(update(0, rest, 16), x, n);
}

uint32_t crc32(uint32_t crc, const uint8_t* x, size_t n) { return ~folded(~crc, x, n); }

#else

uint32_t crc32(uint32_t crc, const uint8_t* x, size_t n) { return ~update(~crc, x, n); }

#endif

}  // namespace

void fill_checksum(Kernels& k) { k.crc32 = crc32; }

}  // namespace toast::TOAST_VARIANT

// Byte-pair encoding of one word: symbols, and the pair of the lowest rank merged until none is left.
#pragma once
#include <memory>
#include <vector>

#include "form.h"

namespace vocabulary {

struct Piece {
  uint32_t token, size;  // bytes of the word that it stands for
};

class Merger {
 public:
  // expected: bytes of all words; a long text's words are remembered
  Merger(const Form& form, size_t expected);
  void encode(const uint8_t* word, size_t n, std::vector<Piece>& out);
  bool skipped() const { return skipped_; }  // whether the last word had symbols that were left out

 private:
  static constexpr size_t SHORT = 64;      // symbols of a word that is looked through for each merge
  static constexpr size_t ENTRIES = 8192;  // words that are remembered
  struct Entry {
    uint64_t hash;
    uint8_t size, count;
    uint8_t sizes[6];
    uint32_t tokens[6];
    uint8_t word[24];
  };

  void symbols(const uint8_t* word, size_t n);
  void merge_short();
  void merge_long();
  void merged(const uint8_t* word, size_t n, std::vector<Piece>& out);
  void unknown(size_t n, bool follows);

  const Form& form_;
  std::vector<Piece> symbols_;
  bool skipped_ = false;
  std::vector<Entry> remembered_;
};

}  // namespace vocabulary

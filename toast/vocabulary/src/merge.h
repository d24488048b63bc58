// Byte-pair encoding of one word: symbols, and the pair of the lowest rank merged until none is left.
#pragma once
#include <vector>

#include "form.h"
#include "piece.h"

namespace vocabulary {

class Merger {
 public:
  explicit Merger(const Form& form) : form_(form) {}
  void encode(const uint8_t* word, size_t n, std::vector<Piece>& out);
  bool skipped() const { return skipped_; }  // whether a word since forget() had symbols that were left out
  void forget() { skipped_ = false; }

 private:
  static constexpr size_t SHORT = 64;  // symbols of a word that is looked through for each merge

  void symbols(const uint8_t* word, size_t n);
  void merge_short();
  void merge_long();
  void unknown(size_t n, bool follows);

  const Form& form_;
  std::vector<Piece> symbols_;
  bool skipped_ = false;
};

}  // namespace vocabulary

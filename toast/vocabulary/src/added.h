// Looking for added tokens in a text: the leftmost, of those the longest.
#pragma once
#include <vector>

#include "form.h"

namespace vocabulary {

struct Match {
  const Added* token;  // null for text between two
  size_t begin, end;
};

class Finder {
 public:
  Finder(const Form& form, uint32_t root);
  bool empty() const { return empty_; }
  // Parts that make the text up.
  void find(const uint8_t* text, size_t n, std::vector<Match>& out) const;

 private:
  const Added* longest(const uint8_t* p, size_t n, size_t* size) const;
  uint32_t child(uint32_t node, uint8_t byte) const;

  const Form& form_;
  uint32_t first_[256];  // node of each first byte, 0 for none
  bool empty_ = true;
};

}  // namespace vocabulary

// What is done to a text before it is cut into words: the steps of its normalizer, and where each character comes from.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "form.h"

namespace vocabulary {

// A text, and which character of the one that it was made of each of its characters has its place from.
struct Normal {
  std::string text;
  std::vector<uint32_t> origin;
};

class Steps {
 public:
  explicit Steps(const Form& form);
  // Whether they change a text; out: what it becomes. Throws Unsure (normal.h).
  bool run(std::string_view text, Normal& out) const;

 private:
  struct Edits;
  bool step(const Step& s, std::string_view text, Normal& out) const;
  bool map(std::string_view text, Normal& out) const;
  bool replace(const Step& s, std::string_view text, Normal& out) const;
  bool strip(const Step& s, std::string_view text, Normal& out) const;
  bool spell(std::string_view text, Normal& out) const;
  std::optional<std::string_view> mapped(std::string_view characters) const;
  uint8_t kind(std::string_view text, size_t at) const;
  size_t cluster(std::string_view text, size_t at) const;
  bool may_begin_before(std::string_view text, size_t at) const;

  const Form& form_;
  bool changes_[128];     // whether this character alone is mapped to something else
  uint8_t spelled_[128];  // what it becomes by itself; LONG for more than a character or none
  static constexpr uint8_t LONG = 0xff;
};

}  // namespace vocabulary

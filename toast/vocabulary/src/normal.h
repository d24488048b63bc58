// Unicode's form NFC, or NFKC, as the tokenizers library makes it, and where each character comes from.
#pragma once
#include <string>
#include <vector>

#include "form.h"

namespace vocabulary {

// Raised for a text that only the library can read.
struct Unsure {};

// Whether the text is in the form already, as far as a look at each character tells.
bool is_normal(const Form& form, std::string_view text);

// out: the text in the form; origin: for each of its characters, which one of the text it has its place from.
void normalize(const Form& form, std::string_view text, std::string& out, std::vector<uint32_t>& origin);

// The row of a character, or of a pair, in a table that is sorted by it; null.
const Triple* find(const Form& form, Section s, uint32_t a, uint32_t b, bool pair);

// Put a character's UTF-8 at the end.
void append(std::string& out, uint32_t c);

}  // namespace vocabulary

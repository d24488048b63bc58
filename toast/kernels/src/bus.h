#pragma once

namespace toast {

// From now on a mapped file that shrinks ends the process with status 2 and a line.
void tell_of_shrunk_files();

}  // namespace toast

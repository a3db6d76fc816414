// What a TensorSource may tell people beyond its tensors. A loader that has nothing to tell does not need this header.
#pragma once

#include <qmill/loader.h>

#include <string>
#include <vector>

namespace qmill {

// Optional: a TensorSource that has something to tell derives from this class, too. The host finds out.
class QMILL_API SourceDetails {
 public:
  virtual ~SourceDetails();

  // The type in which the file holds tensor number `index` ("Q4_K"), where read_part() decodes codes that had lost something. Empty,
  // which is the default: the values are those of the file. [any-thread]
  virtual std::string stored_type(std::size_t index) const;

  // Sentences about how the model was opened. Default: none. [any-thread]
  virtual std::vector<std::string> remarks() const;
};

// Of any source; a source that wraps another one passes them on.
QMILL_API std::string stored_type(const TensorSource& source, std::size_t index);
QMILL_API std::vector<std::string> source_remarks(const TensorSource& source);

}  // namespace qmill

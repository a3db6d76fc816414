#include <qmill/source_details.h>

namespace qmill {

SourceDetails::~SourceDetails() = default;
std::string SourceDetails::stored_type(std::size_t) const { return {}; }
std::vector<std::string> SourceDetails::remarks() const { return {}; }

std::string stored_type(const TensorSource& source, std::size_t index) {
  const auto* details = dynamic_cast<const SourceDetails*>(&source);
  return details == nullptr ? std::string() : details->stored_type(index);
}

std::vector<std::string> source_remarks(const TensorSource& source) {
  const auto* details = dynamic_cast<const SourceDetails*>(&source);
  return details == nullptr ? std::vector<std::string>() : details->remarks();
}

}  // namespace qmill

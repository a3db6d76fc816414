#include <qmill/core/architecture.h>

#include "host/guard.h"
#include "model/name_index.h"

#include <algorithm>

namespace qmill {
namespace {

struct Candidate {
  const Fingerprint* fingerprint;
  const ModelFilter* filter;
};

std::vector<Candidate> candidates(const Host& host) {
  std::vector<Candidate> list;
  for (const ModelFilter* filter : host.filters())
    for (const Fingerprint& fingerprint : guard(filter->info().name, "fingerprints", "", [&] { return filter->fingerprints(); }))
      list.push_back({&fingerprint, filter});
  std::stable_sort(list.begin(), list.end(),
                   [](const Candidate& a, const Candidate& b) { return a.fingerprint->order < b.fingerprint->order; });
  return list;
}

}  // namespace

std::optional<Architecture> recognise(const Host& host, const TensorSource& source) {
  const std::vector<Candidate> known = candidates(host);
  for (const std::string_view prefix : model_prefixes(source.tensors())) {
    const NameIndex index(source.tensors(), prefix);
    for (const Candidate& candidate : known)
      if (index.fits(*candidate.fingerprint))
        return Architecture{candidate.fingerprint->architecture, candidate.filter, std::string(prefix),
                            candidate.fingerprint->renamed_by_readers};
  }
  return std::nullopt;
}

}  // namespace qmill

// LoRAs that are merged into a model: which tensors they change, and the changed values.
#pragma once

#include "engine/buffer_pool.h"
#include "engine/task_pool.h"
#include "lora/lora_alpha.h"
#include "lora/model_layers.h"

#include <qmill/core/lora.h>
#include <qmill/loader.h>
#include <qmill/shards.h>

namespace qmill {

// Immutable. [any-thread]
class Merge {
 public:
  // Opens the files, reads headers and alphas, and matches them with the model. Throws Error(usage) for numbers that are not finite;
  // Error(io, input, unsupported) that names file and tensor: a file that is damaged or changes nothing, a shape that is not the model's,
  // and unless the options permit it, a change that is of no layer of the model.
  Merge(const OpenFile& open, const TensorSource& model, const MergeOptions& options, const KnownModel& known = {});
  ~Merge();

  const MergeAccount& account() const { return account_; }

  // Numbers of the files, as in account(), that change tensor number `index` of the model; in the order in which they do.
  std::vector<std::size_t> files_of(std::size_t index) const;

  bool changes(std::size_t index) const;

  // Tells the headers of the files from those of others.
  std::string identity() const;

  // Memory for changing it, besides its source: about, and 0 for a tensor that nothing changes.
  std::uint64_t working_bytes(std::size_t index) const;

  // The changed values, F32, of `values` as read from the source; F32 ones are changed in place. Throws Error(numeric, input) that names
  // file and tensor. The same bits for every number of threads.
  at::Tensor apply(std::size_t index, at::Tensor values, BufferPool& buffers, TaskPool& tasks) const;

 private:
  struct File;
  struct Change;    // of one tensor of the model by one file
  struct Target;    // a tensor of the model, and its changes
  struct Matching;  // of one file with the model

  void match(const LoraEntry& entry, const ModelLayer& layer, Matching& matching);
  static void require_complete(const MergedLora& merged, const Matching& matching);
  std::string lora_names(const Target& target) const;

  MergeAccount account_;
  std::vector<std::unique_ptr<File>> files_;
  std::map<std::size_t, Target> targets_;  // by number among the model's tensors
};

// 0.9^i of file number i of several.
double dampening(std::size_t i);

}  // namespace qmill

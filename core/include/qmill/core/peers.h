// Several processes that make one output together: how they talk to each other. A program implements it (apps/qmill/mpi_peers.h, with MPI).
#pragma once

#include <qmill/core/export.h>

#include <chrono>
#include <optional>
#include <string>

namespace qmill {

// Every process has its own, with the same count. Rank 0 leads: it hands out the layers and publishes. All of them must see the inputs and
// the folder of the output under the same names.
class QMILL_CORE_API Peers {
 public:
  struct Mail {
    int from = 0;
    std::string text;
  };

  virtual ~Peers();

  virtual int rank() const = 0;
  virtual int count() const = 0;

  // Messages from one rank to another arrive whole and in order. May throw Error(io). [any-thread]
  virtual void send(int to, const std::string& text) = 0;

  // Nothing if none arrives in that time. [one thread at a time]
  virtual std::optional<Mail> receive(std::chrono::milliseconds wait) = 0;

  // How long the others wait for a rank that says nothing.
  virtual std::chrono::seconds patience() const { return std::chrono::seconds(60); }
};

// For a rank that ends before run_plan() could tell the others: `why` is its error. They end, too. Throws nothing.
QMILL_CORE_API void leave(Peers& peers, const std::string& why);

}  // namespace qmill

// qmill-mpi: the command, run by several processes that share one conversion. Rank 0 speaks for all.
#include "commands.h"
#include "mpi_peers.h"
#include "run_words.h"
#include "shared_run.h"
#include "text.h"

#include <qmill/core/logging.h>
#include <qmill/core/process.h>

#include <boost/mpi/environment.hpp>

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  using namespace qmill;
  prepare_process();
  int status = 0;
  {
    const boost::mpi::environment environment(argc, argv, boost::mpi::threading::serialized, false);
    MpiPeers peers;
    if (boost::mpi::environment::thread_level() < boost::mpi::threading::serialized) {
      app::say("qmill: error: this MPI allows no threads; use one that was built with MPI_THREAD_SERIALIZED\n");
      return app::kFailed;
    }
    app::share_run(peers);
    const bool leads = peers.rank() == 0;
    if (!leads) {
      set_log_sink([](LogLevel, std::string_view) {});
      if (std::freopen("/dev/null", "w", stdout) == nullptr) std::fclose(stdout);
    }
    const app::Ending ending = app::ending_of({argv + 1, argv + argc});
    status = ending.status;
    if (leads && !ending.error.empty()) app::say(fmt::format("qmill: error: {}\n", ending.error));
    if (status != 0) leave(peers, ending.error);
    if (std::fflush(stdout) != 0 && status == 0) status = app::kFailed;
    // A rank that does not answer would keep the others here.
    if (!peers.finish()) {
      if (!leads && !ending.error.empty()) app::say(fmt::format("qmill: error: rank {}: {}\n", peers.rank(), ending.error));
      boost::mpi::environment::abort(status == 0 ? app::kFailed : status);
    }
  }
  std::_Exit(status);
}

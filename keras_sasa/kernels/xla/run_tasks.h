// Runs the tasks of a call on the threads of XLA.

#ifndef KERAS_SASA_KERNELS_XLA_RUN_TASKS_H_
#define KERAS_SASA_KERNELS_XLA_RUN_TASKS_H_

#include <functional>
#include <memory>

#include "keras_sasa/kernels/base/tasks.h"
#include "xla/ffi/api/ffi.h"

namespace keras_sasa {

// Makes the tasks, runs and finishes them. If memory runs out, the call fails
// and the process goes on.
xla::ffi::Error RunTasks(xla::ffi::ThreadPool& pool,
                         const std::function<std::unique_ptr<Tasks>()>& make);

}  // namespace keras_sasa

#endif  // KERAS_SASA_KERNELS_XLA_RUN_TASKS_H_

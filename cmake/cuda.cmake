# CUDA kernels.  Every csrc/*/cuda/*.cu is found here; adding one needs no other edit.
#   * With nvcc (GRAMCORE_CUDA=AUTO|ON) each is compiled for GRAMCORE_CUDA_ARCHITECTURES and linked into everything that
#     takes `all_objects`; sources that call a launcher see GRAMCORE_WITH_CUDA.
#   * With GRAMCORE_TESTS each is also compiled by the C++ compiler against csrc/cuda_host: gramcore_cuda_emu, a shared
#     library for tests/cuda, and gramcore_cuda_tests / gramcore_cuda_faults from tests/native/cuda_host.
set(GRAMCORE_CUDA_ARCHITECTURES "80;90" CACHE STRING "sm_XX to compile for; the last also as PTX for newer devices")
file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/*/cuda/*.cu)
target_sources(gc_core PRIVATE csrc/core/cuda/status.cc)

# Sets `architectures` to those of GRAMCORE_CUDA_ARCHITECTURES this nvcc knows, and `reason` when it cannot be used.
function(gc_probe_nvcc)
  set(reason "" PARENT_SCOPE)
  if(NOT CUDAToolkit_FOUND OR NOT TARGET CUDA::cudart_static)
    set(reason "nvcc or the static CUDA runtime was not found" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} --list-gpu-code OUTPUT_VARIABLE known RESULT_VARIABLE status)
  set(usable "")
  foreach(arch IN LISTS GRAMCORE_CUDA_ARCHITECTURES)
    if(known MATCHES "sm_${arch}(\n|$)")
      list(APPEND usable ${arch})
    endif()
  endforeach()
  set(architectures "${usable}" PARENT_SCOPE)
  if(NOT status EQUAL 0 OR NOT usable)
    set(reason "${CUDAToolkit_NVCC_EXECUTABLE} knows none of sm_${GRAMCORE_CUDA_ARCHITECTURES}" PARENT_SCOPE)
    return()
  endif()
  # Finds an nvcc that does not accept the C++ compiler before the build does.
  set(probe ${CMAKE_BINARY_DIR}/cuda/probe.cu)
  file(CONFIGURE OUTPUT ${probe} CONTENT "__global__ void probe() {}\n")
  execute_process(COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++17 -ccbin ${CMAKE_CXX_COMPILER} -c ${probe} -o ${probe}.o
                  RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE message)
  if(NOT status EQUAL 0)
    set(reason "${CUDAToolkit_NVCC_EXECUTABLE} cannot compile with ${CMAKE_CXX_COMPILER}: ${message}" PARENT_SCOPE)
  endif()
endfunction()

# Compiles one .cu with nvcc; appends the object to `cuda_objects`.
function(gc_nvcc source)
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR}/csrc ${source})
  string(REPLACE "/" "_" name ${name})
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${CUDAToolkit_NVCC_EXECUTABLE} -std=c++17 -O3 -ccbin ${CMAKE_CXX_COMPILER}
            ${gencode} -I${CMAKE_SOURCE_DIR}/csrc -DGRAMCORE_WITH_CUDA -Werror all-warnings
            -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "Compiling ${name} with nvcc" VERBATIM)
  set(cuda_objects ${cuda_objects} ${object} PARENT_SCOPE)
endfunction()

if(NOT GRAMCORE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "GRAMCORE_CUDA must be AUTO, ON or OFF, got ${GRAMCORE_CUDA}")
elseif(GRAMCORE_CUDA STREQUAL "OFF")
  set(reason "GRAMCORE_CUDA is OFF")
else()
  find_package(CUDAToolkit QUIET)
  gc_probe_nvcc()
  if(reason AND GRAMCORE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GRAMCORE_CUDA is ON, but ${reason}; install the CUDA toolkit or use GRAMCORE_CUDA=AUTO")
  endif()
endif()

if(reason)
  message(STATUS "CUDA kernels: not built (${reason})")
else()
  set(gencode "")
  foreach(arch IN LISTS architectures)
    list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
  endforeach()
  list(GET architectures -1 newest)
  list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})
  message(STATUS "CUDA kernels: nvcc ${CUDAToolkit_VERSION} for sm_${architectures}")
  set(cuda_objects "")
  foreach(source IN LISTS cuda_sources)
    gc_nvcc(${source})
  endforeach()
  add_custom_target(gc_cuda_objects DEPENDS ${cuda_objects})
  add_dependencies(gc_core gc_cuda_objects)
  set_source_files_properties(${cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  list(APPEND all_objects ${cuda_objects})
  target_compile_definitions(gc_flags INTERFACE GRAMCORE_WITH_CUDA)
  target_include_directories(gc_core SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  list(APPEND cuda_libraries CUDA::cudart_static -Wl,--exclude-libs,libcudart_static.a)
endif()

if(GRAMCORE_TESTS)
  # None of these is part of `all`: tests/cuda builds them in trees of their own, one per sanitizer.
  # The runtime of the host execution layer is never instrumented (csrc/cuda_host/sanitizer.h says why); it is told
  # which sanitizer the kernels are compiled with.
  set(host_definitions GRAMCORE_WITH_CUDA)
  if(GRAMCORE_SANITIZE MATCHES "address")
    list(APPEND host_definitions GC_HOST_ASAN)
  elseif(GRAMCORE_SANITIZE MATCHES "thread")
    list(APPEND host_definitions GC_HOST_TSAN)
  endif()
  file(GLOB host_runtime CONFIGURE_DEPENDS csrc/cuda_host/*.cc)
  add_library(gc_cuda_host STATIC EXCLUDE_FROM_ALL ${host_runtime})
  target_include_directories(gc_cuda_host BEFORE PUBLIC csrc/cuda_host csrc)
  target_compile_definitions(gc_cuda_host PUBLIC ${host_definitions})
  target_compile_options(gc_cuda_host PRIVATE -Wall -Wextra -Werror -O2 -g)
  target_link_libraries(gc_cuda_host PUBLIC Threads::Threads)

  # A .cu seen by the C++ compiler: a generated source that includes it.
  function(gc_emulate target)
    foreach(source IN LISTS ARGN)
      get_filename_component(source ${source} ABSOLUTE)
      file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${source})
      string(REPLACE "/" "_" name ${name})
      set(wrapper ${CMAKE_BINARY_DIR}/cuda_host/${target}/${name}.cc)
      file(CONFIGURE OUTPUT ${wrapper} CONTENT "// Generated by cmake/cuda.cmake.\n#include \"${source}\"\n")
      target_sources(${target} PRIVATE ${wrapper})
    endforeach()
    target_link_libraries(${target} PRIVATE gc_cuda_host)
    target_compile_options(${target} PRIVATE -Wall -Wextra -Werror -Wno-psabi -Wno-unknown-pragmas)
  endfunction()

  # Not gc_flags: it hides symbols, and the library exists for its C ABI.
  add_library(gramcore_cuda_emu MODULE EXCLUDE_FROM_ALL csrc/core/cuda/status.cc csrc/core/device.cc)
  gc_emulate(gramcore_cuda_emu ${cuda_sources})

  file(GLOB layer_tests CONFIGURE_DEPENDS tests/native/cuda_host/test_*.cu)
  file(GLOB kernel_tests CONFIGURE_DEPENDS tests/native/cuda_host/test_*.cc)
  add_executable(gramcore_cuda_tests EXCLUDE_FROM_ALL tests/native/main.cc ${kernel_tests} csrc/core/cuda/status.cc csrc/core/device.cc)
  gc_emulate(gramcore_cuda_tests ${layer_tests} ${cuda_sources})
  target_include_directories(gramcore_cuda_tests PRIVATE tests)
  target_link_libraries(gramcore_cuda_tests PRIVATE gc_flags)

  add_executable(gramcore_cuda_faults EXCLUDE_FROM_ALL)
  gc_emulate(gramcore_cuda_faults tests/native/cuda_host/faults.cu)
  target_link_libraries(gramcore_cuda_faults PRIVATE gc_flags)
endif()

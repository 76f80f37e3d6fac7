# Fails when an ISA object file defines a weak symbol: the linker may keep that copy for the whole program,
# and a machine without the instruction set would then crash in code that looks unrelated.
#   cmake -DNM=... -DOBJECTS=a.o;b.o -P check_weak.cmake
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "nm failed on ${object}")
  endif()
  string(REGEX MATCHALL "[^\n]* [WwVvu] [^\n]*" weak "${symbols}")
  list(FILTER weak EXCLUDE REGEX "__tsan|__asan|__odr_asan|DW\\.ref")
  if(weak)
    message(FATAL_ERROR "weak symbols in ISA object ${object}:\n${weak}\n"
                        "use static or GC_INLINE functions and no library templates in kernel sources")
  endif()
endforeach()

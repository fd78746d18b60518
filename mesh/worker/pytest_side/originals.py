"""The system's functions as they were before any test: a test may replace them, for its own time or for good.

While a test is being torn down, when its replacements may still stand, a slot already asks for its next test; and what
it reports, and how, must not depend on what the test left behind.
"""

import os
import select
import signal
import time

chdir = os.chdir
close = os.close
dup2 = os.dup2
exit_now = os._exit
fchdir = os.fchdir
fstat = os.fstat
ftruncate = os.ftruncate
getcwd = os.getcwd
getitimer = signal.getitimer
getsignal = signal.getsignal
isdir = os.path.isdir
join = os.path.join
listdir = os.listdir
lseek = os.lseek
now = time.time
pread = os.pread
pwrite = os.pwrite
read = os.read
select_on = select.select
setitimer = signal.setitimer
set_signal = signal.signal
write = os.write

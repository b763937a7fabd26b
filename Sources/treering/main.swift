// The executable: everything is in the library's Command/ folder.

import Glibc
import Treering

exit(TreeringCommand.run(Array(CommandLine.arguments.dropFirst())))

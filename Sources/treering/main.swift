// The executable: everything is in the library's Command/ folder.

import Glibc
import Treering

exit(TreeringCommand.main())

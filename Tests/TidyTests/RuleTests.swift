// Each rule is shown to fail on a made-up source that breaks it, and to pass one that only seems to.

import Testing

@Suite struct RuleTests {
    private static func lib(_ folder: String, _ text: String, name: String = "A") -> SourceFile {
        SourceFile("Sources/Treering/\(folder)/\(name).swift", text)
    }

    @Test func namingAHigherType() {
        let high = Self.lib(
            "FileSystem", "final class Volume<D: Device> {\n    enum Order { case a }\n}\nprivate struct Books {}\n")
        let low = Self.lib("Index", "struct Tree {\n    var owner: Volume<Int>?\n}\n")
        #expect(Rules.layering([high, low]).map(\.place) == ["Sources/Treering/Index/A.swift:2"])
        let inText = Self.lib("Index", "let text = \"a \\(Volume<Int>.self)\"\n")
        #expect(Rules.layering([high, inText]).count == 1)
        let harmless = Self.lib(
            "Index",
            "/// A `Volume` calls this.\nstruct Tree {\n    let text = \"Volume\"\n    func a(_ b: Tree.Volume, _ c: Order, _ d: Books) {}\n}\n"
        )
        #expect(Rules.layering([high, harmless]) == [])
        #expect(Rules.layering([Self.lib("FuseServer", "let a: Volume<Int>\n"), high]) == [])
        let own = Self.lib("Index", "enum E {\n    struct Volume {}\n    var v: Volume\n}\n")
        #expect(Rules.layering([high, own]) == [])
        #expect(Rules.layering([Self.lib("Helpers", "")]).count == 1)
        #expect(Rules.layering([SourceFile("Sources/Treering/A.swift", "")]).count == 1)
    }

    @Test func namingTheSimulation() {
        #expect(
            Rules.simulation([Self.lib("FileSystem", "let a = Rebuild<SimulatedDevice>.describe(key)\n")]).count == 1)
        let whole = "// For tests.\n\n#if SIMULATION\n    final class SimulatedDevice {}\n#endif\n"
        #expect(Rules.simulation([Self.lib("Simulation", whole)]) == [])
        #expect(Rules.simulation([Self.lib("Device", whole)]).count == 1)
        #expect(Rules.simulation([Self.lib("Simulation", "final class SimulatedDevice {}\n")]).count == 1)
    }

    @Test func callingUp() {
        let text = """
            final class A {
                let onEnd: @Sendable (Int) -> Void
                var more:
                    [() -> Void] = []
                enum E { case later(() -> Void), never }
                private var next: Retry?
                var count: Int { map { (a: Int) -> Int in a } }
                func run(_ body: () -> Void) {
                    let own: () -> Void = { body() }
                }
            }

            """
        let alias = Self.lib("Store", "typealias Retry = (Int) -> Void\n", name: "B")
        let slots = ["onEnd", "more", "later", "next"].map { ("Index/A.\($0)", "") }
        #expect(
            Rules.callsUp([Self.lib("Index", text), alias], [:]).map { $0.place.suffix(2) } == [":2", ":3", ":5", ":6"])
        #expect(Rules.callsUp([Self.lib("Index", text), alias], Dictionary(uniqueKeysWithValues: slots)) == [])
        #expect(Rules.callsUp([Self.lib("Store", text), alias], [:]) == [])
        #expect(Rules.callsUp([alias], ["Index/A.gone": ""]).map(\.place) == ["Index/A.gone"])
    }

    @Test func speakingToTheKernelElsewhere() {
        for text in ["let a = FUSE_ROOT_ID\n", "let a = fuse_entry_param()\n", "let a: UInt = 0xC010_E701\n"] {
            #expect(Rules.kernelNames([Self.lib("Command", text)]).count == 1, "\(text)")
            #expect(Rules.kernelNames([Self.lib("FuseServer", text)]) == [], "\(text)")
        }
        #expect(Rules.kernelNames([Self.lib("FuseServer", "let a = IORING_SETUP_SQPOLL\n")]).count == 1)
        let fine = "let a = \"fuse_\" // io_uring\nlet b = 0x9E37_79B1\nlet c = fuse(IORINGS)\n"
        #expect(Rules.kernelNames([Self.lib("Index", fine)]) == [])
    }

    @Test func crowdingAFolder() {
        let files = (0..<31).map { Self.lib("Store", "", name: "A\($0)") }
        #expect(Rules.folderSize(files).map(\.place) == ["Sources/Treering/Store"])
        #expect(Rules.folderSize(Array(files.dropLast())) == [])
    }

    @Test func keepingByThread() {
        let text = "let key = pthread_getspecific(a)\n"
        #expect(Rules.threadLocals([Self.lib("FileSystem", text)]).count == 1)
        #expect(Rules.threadLocals([Self.lib("FuseServer", text, name: "ClassicTransport")]).count == 1)
        #expect(Rules.threadLocals([Self.lib("Device", "// pthread_getspecific\n")]) == [])
    }

    @Test(arguments: [
        ("FileSystem", "import CFuse3\n"), ("FuseServer", "import CUring\n"), ("Device", "import Foundation\n"),
        ("Device", "import FoundationEssentials\n"), ("Format", "import Glibc\n"),
        ("Index", "@preconcurrency import struct CUring.io_uring\n"),
        ("Command", "import CFuse3\n"), ("Device", "#if Liburing\nimport CFuse3\n#endif\n"),
    ])
    func importingWhatBelongsElsewhere(_ folder: String, _ text: String) {
        #expect(Rules.imports([Self.lib(folder, text)]).count == 1)
    }

    @Test func importingWhatBelongs() {
        let files = [
            Self.lib("FuseServer", "import CFuse3\nimport CLinux\nimport Glibc\n"),
            Self.lib("Device", "import CUring\n"),
            Self.lib("Format", "// import Glibc\nimport CIsal\n"), SourceFile("Tests/A/B.swift", "import Foundation\n"),
        ]
        #expect(Rules.imports(files) == [])
        #expect(Rules.imports([SourceFile("Sources/treering/main.swift", "import Foundation\n")]).count == 1)
    }

    @Test func waitingByTheTimeOfDay() {
        let text = "clock_gettime(CLOCK_REALTIME, &deadline)\npthread_cond_timedwait(a, b, &deadline)\n"
        #expect(Rules.clocks([Self.lib("Command", text)]).count == 3)
        #expect(Rules.clocks([Self.lib("Device", "pthread_cond_timedwait(a, b, &c)\n", name: "Monitor")]) == [])
        #expect(Rules.clocks([Self.lib("Device", "pthread_cond_wait(a, b)\n// CLOCK_REALTIME\n")]) == [])
    }

    @Test func knowingSegmentsByNumber() {
        let text = "var stuck: Set<SegmentNumber> = []\nvar seen: [SegmentNumber: Int64] = [:]\n"
        #expect(Rules.segmentNumbers([Self.lib("FileSystem", text)]).count == 2)
        #expect(Rules.segmentNumbers([Self.lib("SegmentLog", text, name: "LogWalk")]) == [])
        let fine = "var pool: [SegmentNumber] = []\nvar seen: [SegmentLife: Int64] = [:]\nlet a = [SegmentNumber(1)]\n"
        #expect(Rules.segmentNumbers([Self.lib("FileSystem", fine)]) == [])
    }

    @Test(arguments: [
        "let a = realpath(path, nil)\n", "let a = Glibc.open(path, 0)\n", "let a = getenv(name)\n",
        "for a in CommandLine.arguments {}\n", "let a = String(cString: b)\n", "if lstat(path, &status) == 0 {}\n",
    ])
    func pathsAsText(_ text: String) { #expect(Rules.paths([Self.lib("Command", text)]).count == 1) }

    @Test func pathsAsBytes() {
        let text =
            "func realpath(a: Int) {}\nlet a = path.realpath()\nlet b = try open(plan)\nGlibc.close(a)\n// mkdir(a)\n"
        #expect(Rules.paths([Self.lib("Command", text)]) == [])
        #expect(Rules.paths([Self.lib("Support", "let a = realpath(b, nil)\n", name: "HostString+Calls")]) == [])
    }

    @Test func outgrowing() {
        let lines = String(repeating: "let a = 1\n", count: 500)
        #expect(Rules.fileLength([Self.lib("Index", lines)]) == [])
        #expect(Rules.fileLength([Self.lib("Index", lines + "let b = 1")]).count == 1)
        let body = String(repeating: "        step { 1 }\n", count: 68)
        #expect(Rules.functionLength([Self.lib("Index", "struct S {\n    func f() {\n\(body)    }\n}\n")]) == [])
        for head in [
            "func f()", "init()", "init?(a: Int = { 1 }()) throws(E)", "deinit", "subscript(i: Int) -> Int",
            "func f<T>() -> [T]",
        ] {
            let long = "struct S {\n    \(head) {\n        a()\n\(body)    }\n}\n"
            #expect(
                Rules.functionLength([Self.lib("Index", long)]).map(\.place) == ["Sources/Treering/Index/A.swift:2"],
                "\(head)")
        }
        let requirement =
            "protocol P {\n    func f() -> Int\n    var x: Int { get }\n}\nextension P {\n\(body)\(body)}\n"
        #expect(Rules.functionLength([Self.lib("Index", requirement)]) == [])
        let call = "let a = B.init(\n)\nextension P {\n\(body)\(body)}\n"
        #expect(Rules.functionLength([Self.lib("Index", call)]) == [])
    }

    @Test func scriptsOutgrowing() {
        for path in [
            "mount-scripts/test", "mount-scripts/lib/a.py", ".ci/run", "Tests/Mount/a.sh", "Tests/Mount/b/a.c",
            "Tests/Mount/b/run",
        ] {
            #expect(SourceFile(path, "").isScript, "\(path)")
            #expect(Rules.fileLength([SourceFile(path, String(repeating: "a\n", count: 501))]).count == 1)
        }
        for path in ["Tests/A/B.swift", "docs/run", "Sources/CX/shim.h", "Tests/Mount/.gitignore"] {
            #expect(!SourceFile(path, "").isScript, "\(path)")
        }
        let line = String(repeating: "ä", count: 150)
        #expect(Rules.lineLength([SourceFile("Tests/Mount/a.sh", "\(line)\n\(line)\n")]) == [])
        #expect(
            Rules.lineLength([SourceFile("Tests/Mount/a.sh", "a\n\(line)a\n")]).map(\.place) == ["Tests/Mount/a.sh:2"])
    }

    @Test func missingHeadOfAScript() {
        for text in [
            "", "#!/bin/bash\n", "#!/bin/bash\nset -u\n", "import os\n", "#include <errno.h>\n", "#\nset -u\n",
        ] {
            #expect(Rules.scriptHead([SourceFile("Tests/Mount/a", text)]).count == 1, "\(text)")
        }
        for text in ["#!/bin/bash\n# What it does.\n", "\"\"\"What it does.\"\"\"\n", "// What it does.\n"] {
            #expect(Rules.scriptHead([SourceFile("Tests/Mount/a", text)]) == [], "\(text)")
        }
    }

    @Test func functionsAreMeasuredPastTextsAndComments() {
        let text = #"""
            struct S {
                // { not a brace
                func a() -> String { "}} \(b { "}" }) {" }
                func b() {
                    let c = """
                        } " {{
                        """
                    /* } */ let d = #"} \("#
                }
                func c() {}
            }
            """#
        #expect(Rules.functions(in: Self.lib("Index", text)).map(\.lineCount) == [1, 6, 1])
    }

    @Test func missingHead() {
        for text in [
            "", "import Glibc\n", "\n// What lives here.\n", "/// A type's comment is not the file's.\nstruct S {}\n",
            "//\nimport A\n",
        ] {
            #expect(Rules.headComment([Self.lib("Index", text)]).count == 1, "\(text)")
        }
        #expect(Rules.headComment([Self.lib("Index", "// What lives here.\nimport Glibc\n")]) == [])
    }

    @Test func aBareOffset() {
        for text in [
            "bytes.store(epoch, at: 40)", "let end = bytes.load(60, as: UInt32.self)", "x = bytes.load(place + 4)",
            "key.encode(into: bytes, at: offset + 8)", "bytes[Field<UInt8>(36)] = 4",
        ] { #expect(Rules.offsets([Self.lib("Store", "// A.\n\(text)\n")]).count == 1, "\(text)") }
        for text in [
            "let end = Field<UInt32>(60)", "bytes[field.end] = 0", "words[4].offset", "list.insert(x, at: 0)",
            "x.load(ordering: .relaxed)", "// at: 40", "bytes.load(index * 4)",
        ] { #expect(Rules.offsets([Self.lib("Store", "// A.\n\(text)\n")]) == [], "\(text)") }
        #expect(Rules.offsets([Self.lib("FuseServer", "// A.\nrequest.load(4)\n")]) == [])
    }

    @Test func aDevelopersPath() {
        let home = "/" + "root/"
        let work = "/" + "work/"
        #expect(Rules.developerPaths([SourceFile("docs/a.md", "See\n\(work)main.\n")]).map(\.place) == ["docs/a.md:2"])
        #expect(Rules.developerPaths([SourceFile("mount-scripts/a", "cd \(home)x")]).count == 1)
        #expect(Rules.developerPaths([SourceFile("docs/a.md", "the root, work/ and /var/roots\n")]) == [])
    }

    @Test func aModuleMapWithCompany() {
        let map = ["Sources/CX/module.modulemap", "Sources/CX/shim.h"]
        #expect(Rules.moduleMaps(map + ["Sources/Treering/A.swift"]) == [])
        #expect(Rules.moduleMaps(map + ["Sources/CX/more.c"]).map(\.place) == ["Sources/CX/more.c"])
        #expect(Rules.moduleMaps([map[0]]).map(\.reason) == ["it is missing"])
    }
}

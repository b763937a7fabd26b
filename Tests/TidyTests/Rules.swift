// The rules of the tree, each a function from files to what breaks it, so that each can be tried on made-up sources.

/// A broken rule: where and how.
struct Violation: Hashable, CustomStringConvertible {
    var place: String
    var reason: String
    var description: String { "\(place): \(reason)" }
}

enum Rules {
    /// The folders of `Sources/Treering`, from the top.
    static let layers = [
        "Command", "FuseServer", "Maintenance", "Store", "FileSystem", "Index", "SegmentLog", "Simulation", "Device",
        "Format", "Support",
    ]
    /// A folder with more files is two rooms that have not been told apart yet.
    static let fileCountLimit = 30
    static let lineLimit = 500
    static let functionLineLimit = 70
    /// Of scripts; those of Swift are measured by its formatter.
    static let columnLimit = 150

    // MARK: Layers

    /// A folder names only types of its own and of the folders below it.
    static func layering(_ files: [SourceFile]) -> [Violation] {
        var found: [Violation] = []
        /// The highest and lowest folder that declares a type for others, by its name.
        var visible: [String: [Int]] = [:]
        /// Names declared anywhere in a folder, nested and private ones too.
        var declared = [Set<String>](repeating: [], count: layers.count)
        for file in files {
            guard let name = file.layer else { continue }
            guard let layer = layers.firstIndex(of: name) else {
                found.append(
                    Violation(
                        place: file.path, reason: "it lies in none of the folders \(layers.joined(separator: ", "))"))
                continue
            }
            for type in types(in: file) {
                declared[layer].insert(type.name)
                if type.isVisible { visible[type.name, default: []].append(layer) }
            }
        }
        for file in files where file.isSwift {
            guard let name = file.layer, let layer = layers.firstIndex(of: name) else { continue }
            let known = declared[layer...].reduce(into: Set<String>()) { $0.formUnion($1) }
            var told: Set<String> = []
            for token in file.tokens where !token.isMember && !known.contains(token.text) {
                guard let homes = visible[token.text], let home = homes.max(), home < layer,
                    told.insert(token.text).inserted
                else { continue }
                found.append(
                    Violation(
                        place: "\(file.path):\(token.line)",
                        reason: "\(name) names \(token.text), which belongs to \(layers[home])"))
            }
        }
        return found
    }

    /// The device of tests is named by Simulation/ and tests alone, and is no part of what is installed.
    static func simulation(_ files: [SourceFile]) -> [Violation] {
        let isWhole = { (file: SourceFile) in
            file.text.contains("\n#if SIMULATION\n") && file.text.hasSuffix("\n#endif\n")
        }
        let shipped = files.filter { $0.layer == "Simulation" && !isWhole($0) }.map {
            Violation(place: $0.path, reason: "not all of it is for tests only (#if SIMULATION)")
        }
        return shipped
            + files.filter { $0.path.hasPrefix("Sources/") && $0.layer != "Simulation" }.flatMap { file in
                file.tokens.filter { $0.text.hasPrefix("Simulated") }.map {
                    Violation(place: "\(file.path):\($0.line)", reason: "it names \($0.text), which is for tests")
                }
            }
    }

    private static func types(in file: SourceFile) -> [(name: String, isVisible: Bool)] {
        let keywords: Set = ["class", "struct", "enum", "protocol", "actor", "typealias"]
        let tokens = file.tokens
        var types: [(String, Bool)] = []
        for (index, token) in tokens.enumerated().dropLast() where keywords.contains(token.text) && !token.isMember {
            let name = tokens[index + 1].text
            guard name.first?.isUppercase == true else { continue }
            let before = tokens[..<index].reversed().prefix { $0.line == token.line }
            let isPrivate = before.contains { $0.text == "private" || $0.text == "fileprivate" }
            types.append((name, token.depth == 0 && !isPrivate))
        }
        return types
    }

    // MARK: Imports

    /// C libraries and Foundation stay where they belong.
    static func imports(_ files: [SourceFile]) -> [Violation] {
        files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") }.flatMap { file in
            modules(of: file).compactMap { module, line in
                let place = "\(file.path):\(line)"
                switch module {
                case "CFuse3" where file.layer != "FuseServer":
                    return Violation(place: place, reason: "only FuseServer/ imports CFuse3")
                case "CUring" where file.layer != "Device":
                    return Violation(place: place, reason: "only Device/ imports CUring")
                case _ where module.hasPrefix("Foundation"):
                    return Violation(place: place, reason: "\(module) is imported")
                case _ where file.layer == "Format" && module != "CIsal":
                    return Violation(place: place, reason: "Format/ imports nothing but CIsal")
                default: return nil
                }
            }
        }
    }

    private static func modules(of file: SourceFile) -> [(String, Int)] {
        let kinds: Set = ["struct", "class", "enum", "protocol", "typealias", "func", "let", "var"]
        let tokens = file.tokens
        return tokens.indices.dropLast().compactMap { index in
            guard tokens[index].text == "import", !tokens[index].isMember else { return nil }
            let next = tokens[index + 1]
            let module = kinds.contains(next.text) && index + 2 < tokens.count ? tokens[index + 2] : next
            return (module.text, module.line)
        }
    }

    // MARK: Calls up

    /// The functions that a folder below Store/ keeps and others fill in, and what for. By such a slot a lower layer finishes the work of
    /// a higher one; without one it would name that layer's types.
    static let slots = [
        "FileSystem/Core.now": "the clock, which tests set",
        "Index/Index.fetchNow": "offline, a page that is missed amid a modification is fetched at once",
        "Index/IndexVerifier.onDamage": "a walk gives back what it meets",
        "Index/IndexVerifier.onEntry": "a walk gives back what it meets",
        "Index/IndexVerifier.onPage": "a walk gives back what it meets",
        "Index/IndexVerifier.read": "the index does no I/O",
        "SegmentLog/SegmentLog.placePayload": "the index learns where a payload lies when its batch is closed",
        "Simulation/SimulatedCore.lies": "a test says which syncs are a lie",
        "Simulation/SimulatedDevice.handler": "completions go to whoever submits",
        "Device/DescriptorTable.openFile": "how a file of a store is opened; filled in Device/ itself",
        "Device/DescriptorTable.placeChanged": "the ring registers what is open; filled in Device/ itself",
        "Device/DeviceThread.run": "what a thread runs",
        "Device/RingDevice.handler": "completions go to whoever submits",
        "Device/WorkerPool.handler": "completions go to whoever submits",
        "Support/LogSink.write": "every layer logs; Command/ decides where to",
    ]

    /// No folder below Store/ reaches a higher one through a function that it keeps, but by `slots`; each of those is in use.
    static func callsUp(_ files: [SourceFile], _ slots: [String: String] = slots) -> [Violation] {
        let aliases = Set(
            files.flatMap { file in
                String(decoding: file.code, as: UTF8.self).matches(of: /typealias (\w+)[^\n]*->/).map { String($0.1) }
            })
        var unused = slots
        let lower = Set(layers.drop { $0 != "FileSystem" })
        var found: [Violation] = []
        for file in files where file.isSwift && lower.contains(file.layer ?? "") {
            let stem = file.path.dropFirst("Sources/Treering/".count).dropLast(".swift".count)
            for (name, line) in keptFunctions(in: file, aliases)
            where unused.removeValue(forKey: "\(stem).\(name)") == nil {
                found.append(
                    Violation(
                        place: "\(file.path):\(line)", reason: "\(name) keeps a function that may call a higher folder")
                )
            }
        }
        return found + unused.keys.sorted().map { Violation(place: $0, reason: "there is no such slot any more") }
    }

    /// Properties and cases of enumerations whose type, as it is written, has a function in it.
    private static func keptFunctions(in file: SourceFile, _ aliases: Set<String>) -> [(name: String, line: Int)] {
        let bodies = functions(in: file).map { $0.line..<$0.line + $0.lineCount }
        let code = String(decoding: file.code, as: UTF8.self)
        return code.matches(of: /\b(?:let|var|case)\s+(\w+)\s*(?=[:(])/).compactMap { match in
            let written = type(from: code[match.range.upperBound...])
            guard
                written.contains("->") || written.matches(of: /\w+/).contains(where: { aliases.contains(String($0.0)) })
            else { return nil }
            let line = code[..<match.range.lowerBound].count { $0 == "\n" } + 1
            return bodies.contains { $0.contains(line) } ? nil : (String(match.1), line)
        }
    }

    /// What is written of a type: to its line's end, or to an initial value or a body.
    private static func type(from text: Substring) -> Substring {
        var depth = 0
        var isBegun = false
        return text.prefix { character in
            switch character {
            case "(", "[": depth += 1
            case ")", "]": depth -= 1
            case "{", "=": if depth == 0 { return false }
            case "\n": if depth == 0 && isBegun { return false }
            default: break
            }
            isBegun = isBegun || !(character.isWhitespace || character == ":")
            return depth >= 0
        }
    }

    // MARK: The kernel's interfaces

    /// Each interface of the kernel is spoken in one folder: its C names are nowhere else, and neither are the numbers of ioctls.
    static func kernelNames(_ files: [SourceFile]) -> [Violation] {
        let homes = [
            "fuse_": "FuseServer", "FUSE_": "FuseServer", "io_uring": "Device", "IORING_": "Device", "IOSQE_": "Device",
        ]
        // The types of ioctls that a mount answers: E7 is our own, the others are 'X', 'f' and 'v'.
        let control = /0x[0-9A-Fa-f]{4}_?(?:E7|e7|58|66|76)[0-9A-Fa-f]{2}/
        return files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") }.flatMap { file in
            file.tokens.compactMap { token in
                let home =
                    token.text.wholeMatch(of: control) != nil
                    ? "FuseServer" : homes.first { token.text.hasPrefix($0.key) }?.value
                guard let home, home != file.layer else { return nil }
                return Violation(place: "\(file.path):\(token.line)", reason: "\(token.text) belongs to \(home)/")
            }
        }
    }

    // MARK: Waiting

    /// Threads wait by the clock that is never set: only Support/Clock asks for the time of day, and only conditions of Device/Monitor are
    /// waited for with a limit.
    static func clocks(_ files: [SourceFile]) -> [Violation] {
        let homes = [
            "CLOCK_REALTIME": "Support/Clock", "gettimeofday": "Support/Clock", "clock_gettime": "Support/Clock",
            "pthread_cond_timedwait": "Device/Monitor", "pthread_mutex_timedlock": "", "sem_timedwait": "",
            "mq_timedreceive": "", "mq_timedsend": "", "timer_create": "", "timerfd_create": "",
        ]
        return files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") }.flatMap { file -> [Violation] in
            file.tokens.compactMap { token -> Violation? in
                guard let home = homes[token.text], !token.isMember,
                    file.path != "Sources/Treering/\(home).swift"
                else { return nil }
                return Violation(place: "\(file.path):\(token.line)", reason: "it names \(token.text)")
            }
        }
    }

    // MARK: Identity

    /// Nothing is remembered by the number of a segment, which begins other lives under it, but by its life. Only who has a store for
    /// himself, and the table of segments, may know them by number.
    static func segmentNumbers(_ files: [SourceFile]) -> [Violation] {
        let exempt: Set = [
            "SegmentTable", "LogWalk", "Recovery", "Recovery+Durable", "Housekeeper+Relocation", "RebuiltIndex",
            "LogDamage",
            "SuperblockDerivation", "Dump+Inode",
        ]
        let isHome = { (file: SourceFile) in
            ["SegmentLog", "Store", "Maintenance"].contains(file.layer)
                && exempt.contains { file.path.hasSuffix("/\($0).swift") }
        }
        return files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") && !isHome($0) }.flatMap { file in
            let tokens = file.tokens
            return tokens.indices.dropLast(2).compactMap { index -> Violation? in
                guard tokens[index + 1].text == "SegmentNumber" else { return nil }
                let isSet = tokens[index].text == "Set"
                // A dictionary: of a call or an array, a bracket comes next.
                let next = tokens[index + 2].text
                guard isSet || tokens[index].text == "[" && next != "]" && next != "(" else { return nil }
                return Violation(
                    place: "\(file.path):\(tokens[index].line)", reason: "it knows segments by number, not by life")
            }
        }
    }

    // MARK: Paths

    /// The file that alone calls the host with a path, and the one that alone takes the arguments and the environment.
    private static let pathCallsFile = "Sources/Treering/Support/HostString+Calls.swift"
    private static let hostStringFile = "Sources/Treering/Support/HostString.swift"
    /// Functions of the C library that take a path, but those whose names mean other things here as well (open, stat, unlink).
    private static let pathFunctions: Set = [
        "chmod", "chown", "creat", "execv", "execve", "execvp", "fopen", "getxattr", "lchown", "lgetxattr",
        "lstat",
        "mkdir", "mkdtemp", "mkfifo", "mkstemp", "mknod", "opendir", "posix_spawn", "posix_spawnp", "readlink",
        "realpath",
        "rmdir", "setxattr", "statfs", "strdup", "symlink", "umount2", "utimes",
    ]
    /// The same where the module is named.
    private static let namedFunctions: Set = ["access", "mount", "open", "rename", "stat", "statvfs", "unlink"]
    /// Texts that are the C library's own.
    private static let cTextFiles: Set = [
        "Sources/Treering/Support/Errno.swift", "Sources/Treering/FuseServer/FuseLibrary.swift",
    ]

    /// Paths, arguments and the environment are bytes (HostString); a String would replace what is not UTF-8.
    static func paths(_ files: [SourceFile]) -> [Violation] {
        files.filter { $0.isSwift && $0.path.hasPrefix("Sources/") }.flatMap { file in
            let tokens = file.tokens
            return tokens.indices.dropLast(2).compactMap { index -> Violation? in
                let (token, next) = (tokens[index], tokens[index + 1])
                let isOfGlibc = token.isMember && index > 0 && tokens[index - 1].text == "Glibc"
                let isCall =
                    next.text == "(" && (!token.isMember || isOfGlibc)
                    && (index == 0 || tokens[index - 1].text != "func")
                let place = "\(file.path):\(token.line)"
                if isCall, pathFunctions.contains(token.text) || isOfGlibc && namedFunctions.contains(token.text) {
                    guard ![pathCallsFile, hostStringFile].contains(file.path) else { return nil }
                    return Violation(place: place, reason: "\(token.text) takes a path: call it by HostString")
                }
                if token.text == "CommandLine" || token.text == "getenv" && isCall {
                    guard file.path != hostStringFile else { return nil }
                    return Violation(place: place, reason: "\(token.text): take what is typed as HostString")
                }
                if token.text == "String", next.text == "(", tokens[index + 2].text == "cString" {
                    guard !cTextFiles.contains(file.path) else { return nil }
                    return Violation(
                        place: place, reason: "String(cString:) replaces what is not UTF-8: HostString keeps it")
                }
                return nil
            }
        }
    }

    /// Nothing travels with a thread: completions run on any, in the midst of other requests.
    static func threadLocals(_ files: [SourceFile]) -> [Violation] {
        let names: Set = [
            "pthread_key_create", "pthread_getspecific", "pthread_setspecific", "TaskLocal", "threadDictionary",
            "thread_local", "_Thread_local", "__thread",
        ]
        return files.filter { $0.path.hasPrefix("Sources/") }.flatMap { file in
            file.tokens.filter { names.contains($0.text) }.map {
                Violation(place: "\(file.path):\($0.line)", reason: "it keeps something by thread")
            }
        }
    }

    // MARK: Layouts

    /// The folders whose bytes lie on disk.
    private static let diskLayers: Set = ["Format", "SegmentLog", "Index", "Store", "Maintenance"]

    /// Where something lies on disk is said once, by a property of its layout: no number is an offset anywhere else.
    static func offsets(_ files: [SourceFile]) -> [Violation] {
        files.filter { diskLayers.contains($0.layer ?? "") }.flatMap { file in
            String(decoding: file.code, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
                .enumerated().compactMap { index, line in
                    let isPlace = line.contains(/(?:[ (]at: |load\()(?:[a-z]\w* \+ [0-9]|[1-9])/)
                    let isField = line.contains(/(?:Field|Tail|Room)(?:<\w+>)?\([1-9]/) && !line.contains("let ")
                    guard isPlace || isField else { return nil }
                    return Violation(place: "\(file.path):\(index + 1)", reason: "a bare offset: name it in its layout")
                }
        }
    }

    // MARK: Size and shape

    static func folderSize(_ files: [SourceFile]) -> [Violation] {
        Dictionary(grouping: files.filter { $0.layer != nil }) {
            String($0.path.prefix(upTo: $0.path.lastIndex(of: "/")!))
        }
        .filter { $0.value.count > fileCountLimit }.sorted { $0.key < $1.key }.map { folder, files in
            Violation(place: folder, reason: "it has \(files.count) files, more than \(fileCountLimit)")
        }
    }

    static func fileLength(_ files: [SourceFile]) -> [Violation] {
        files.filter { $0.lineCount > lineLimit }.map {
            Violation(place: $0.path, reason: "it has \($0.lineCount) lines, more than \(lineLimit)")
        }
    }

    static func lineLength(_ files: [SourceFile]) -> [Violation] {
        files.flatMap { file in
            file.text.split(separator: "\n", omittingEmptySubsequences: false).enumerated().compactMap { index, line in
                let count = line.unicodeScalars.count
                return count <= columnLimit
                    ? nil
                    : Violation(
                        place: "\(file.path):\(index + 1)",
                        reason: "it has \(count) characters, more than \(columnLimit)")
            }
        }
    }

    static func functionLength(_ files: [SourceFile]) -> [Violation] {
        files.filter(\.isSwift).flatMap { file in
            functions(in: file).filter { $0.lineCount > functionLineLimit }.map {
                Violation(
                    place: "\(file.path):\($0.line)",
                    reason: "\($0.name) has \($0.lineCount) lines, more than \(functionLineLimit)")
            }
        }
    }

    /// Every function with a body, from the line of its name to its closing brace.
    static func functions(in file: SourceFile) -> [(name: String, line: Int, lineCount: Int)] {
        let openers: Set = ["func", "init", "deinit", "subscript"]
        let enders: Set = [
            "func", "init", "deinit", "subscript", "var", "let", "case", "static", "struct", "class", "enum",
            "extension", "}",
        ]
        let tokens = file.tokens
        var found: [(String, Int, Int)] = []
        for (index, token) in tokens.enumerated() where openers.contains(token.text) && !token.isMember {
            let name = token.text == "func" && index + 1 < tokens.count ? tokens[index + 1].text : token.text
            var brackets = 0
            for position in tokens.indices[(index + 1)...] {
                let next = tokens[position]
                if next.text == "(" || next.text == "[" { brackets += 1 }
                if next.text == ")" || next.text == "]" { brackets -= 1 }
                guard brackets == 0 else { continue }
                if enders.contains(next.text), !next.isMember { break }
                guard next.text == "{" else { continue }
                let end = tokens[position...].first { $0.text == "}" && $0.depth == next.depth }
                found.append((name, token.line, (end?.line ?? file.lineCount) - token.line + 1))
                break
            }
        }
        return found
    }

    /// The first line of a source says what lives there.
    static func headComment(_ files: [SourceFile]) -> [Violation] {
        files.filter(\.isSwift).compactMap { file in
            let first = file.text.prefix { $0 != "\n" }
            let isComment = first.hasPrefix("// ") && first.count > 10
            return isComment
                ? nil
                : Violation(place: file.path, reason: "it does not begin with a comment that says what lives there")
        }
    }

    /// The first line of a script, but for the one that names its interpreter, says what it does.
    static func scriptHead(_ files: [SourceFile]) -> [Violation] {
        files.compactMap { file in
            let lines = file.text.split(separator: "\n", omittingEmptySubsequences: false)
            let first = lines.first { !$0.hasPrefix("#!") } ?? ""
            let isComment = ["# ", "// ", "\"\"\""].contains(where: first.hasPrefix) && first.count > 10
            return isComment
                ? nil : Violation(place: file.path, reason: "it does not begin with a comment that says what it does")
        }
    }

    /// Nothing in the repository knows where a developer keeps it.
    static func developerPaths(_ files: [SourceFile]) -> [Violation] {
        let paths = ["work", "root"].map { "/\($0)/" }
        return files.flatMap { file in
            file.text.split(separator: "\n", omittingEmptySubsequences: false).enumerated().compactMap { index, line in
                paths.first { line.contains($0) }.map {
                    Violation(
                        place: "\(file.path):\(index + 1)", reason: "it names \($0), a path of a developer's machine")
                }
            }
        }
    }

    /// A folder with a module map is a module map and its header.
    static func moduleMaps(_ paths: [String]) -> [Violation] {
        let folders = Set(
            paths.filter { $0.hasPrefix("Sources/") && $0.hasSuffix("/module.modulemap") }.map { $0.dropLast(17) })
        return folders.sorted().flatMap { folder in
            let contents = Set(
                paths.filter { $0.hasPrefix("\(folder)/") }.map { String($0.dropFirst(folder.count + 1)) })
            return contents.symmetricDifference(["module.modulemap", "shim.h"]).sorted().map {
                Violation(
                    place: "\(folder)/\($0)",
                    reason: contents.contains($0) ? "it does not belong there" : "it is missing")
            }
        }
    }
}
